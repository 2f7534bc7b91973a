package faults

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// abort makes an ext4 read-only under open files, as it does by itself after an error of its device.
const abort, errorsRO = "abort", "errors=remount-ro"

// TestReadOnlyState: the disk of the state becomes read-only while the database writes, or in the middle of a seal. The database goes on, snapshots
// fail and say why, and once the disk is writable again the next one is right.
func TestReadOnlyState(t *testing.T) {
	for _, when := range []string{"writing", "sealing"} {
		t.Run(when, func(t *testing.T) {
			n := seed(t)
			disk := rig.NewDisk(t, "ext4", small, errorsRO)
			s := &subject{t: t, vol: rig.Mounted(t, volume.Options{State: filepath.Join(disk.Dir, "state")})}
			s.db = newDatabase(t, s.vol.Mount, n)
			s.right("a")
			s.writes()
			if when == "sealing" {
				s.db.must(os.WriteFile(filepath.Join(s.vol.Mount, "large"), make([]byte, 64<<20), 0o644))
				s.db.files["large"] = make([]byte, 64<<20)
				if err := s.command("snapshot", s.vol.Mount, "--name", "unsure", "--no-wait"); err != nil {
					t.Error(err)
				}
			}
			if err := disk.Remount(abort); err != nil {
				t.Fatal(err)
			}
			s.writes()
			s.settle()
			s.refusal("read-only", "snapshot", s.vol.Mount, "--name", "ro")
			s.writes()
			if err := compare(s.vol.Mount, s.db.now()); err != nil {
				t.Errorf("the volume: %v", err)
			}
			s.db.close()
			s.remount(disk)
			s.db.open()
			defer s.db.close()
			s.right("b")
		})
	}
}

// remount unmounts the volume and the disk, and mounts both again, after a check of the disk as its administrator does it.
func (s *subject) remount(disk *rig.Disk) {
	s.t.Helper()
	ctx := s.t.Context()
	for _, step := range []func() error{
		func() error { return s.vol.Umount(ctx) }, func() error { return whenFree(disk.Unmount) }, disk.Check, disk.Mount,
		func() error { return s.vol.Start(ctx) },
	} {
		if err := step(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestReadOnlyBacking: the database gets EROFS where the backing became read-only, and what is there can be snapshotted.
func TestReadOnlyBacking(t *testing.T) {
	n := seed(t)
	disk := rig.NewDisk(t, "ext4", small, errorsRO)
	s := &subject{t: t, vol: rig.Mounted(t, volume.Options{
		Backing: filepath.Join(disk.Dir, "backing"), State: filepath.Join(t.TempDir(), "state"),
	})}
	s.db = newDatabase(t, s.vol.Mount, n)
	s.right("a")
	s.db.overwrite(10)
	if err := unix.Syncfs(int(s.db.data.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := disk.Remount(abort); err != nil {
		t.Fatal(err)
	}
	if err := writeSynced(filepath.Join(s.vol.Mount, "new"), 1); !errors.Is(err, unix.EROFS) {
		t.Errorf("making a file on a disk that is read-only: %v, want EROFS", err)
	}
	_, err := s.db.data.WriteAt([]byte{1}, 0)
	if err == nil {
		err = s.db.data.Sync()
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EIO) {
		t.Errorf("writing to a disk that is read-only: %v, want EROFS or EIO", err)
	}
	s.db.data.Close() // whose error says the same
	s.right("ro")
	s.remount(disk)
	s.db.open()
	defer s.db.close()
	s.db.overwrite(10)
	s.right("b")
}

// TestMountReadOnlyState: a volume whose state can't be written isn't mounted, and that is said in one line.
func TestMountReadOnlyState(t *testing.T) {
	disk := rig.NewDisk(t, "ext4", small, "")
	s := &subject{t: t, vol: rig.NewVolume(t, volume.Options{State: filepath.Join(disk.Dir, "state")})}
	if err := disk.Remount("ro"); err != nil {
		t.Fatal(err)
	}
	s.clear(s.refused(s.vol.Start(t.Context())))
	if err := disk.Remount("rw"); err != nil {
		t.Fatal(err)
	}
	if err := s.vol.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.vol.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := whenFree(func() error { return disk.Remount("ro") }); err != nil {
		t.Fatal(err)
	}
	s.clear(s.refused(s.vol.Start(t.Context())))
}

// refused fails the test if there is no error.
func (s *subject) refused(err error) error {
	s.t.Helper()
	if err == nil {
		s.t.Error("a command succeeded that can't have")
	}
	return err
}
