package faults

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// small is about the smallest size that mkfs of ext4 and xfs take without complaint.
const small = 400 << 20

// fill takes all space of a disk, to the last block, and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	// Preallocating is fast; writing takes what is left.
	for n := int64(st.Bavail) * st.Bsize; n > 4096; n /= 2 {
		if end, err := f.Seek(0, io.SeekEnd); err == nil {
			unix.Fallocate(int(f.Fd()), 0, end, n)
		}
	}
	if _, err := io.Copy(f, io.LimitReader(zeros{}, small)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v, want ENOSPC", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// refusal runs a command that must fail and say one of the words.
func (s *subject) refusal(word string, args ...string) {
	s.t.Helper()
	err := s.command(args...)
	if err == nil {
		s.t.Errorf("graphvol %v succeeded", args)
	} else if !strings.Contains(err.Error(), word) {
		s.t.Errorf("graphvol %v: %v; want a word of %q", args, err, word)
	}
}

// right takes a snapshot and compares it, and all that is stored.
func (s *subject) right(name string) {
	s.t.Helper()
	if _, err := s.vol.Snapshot(s.t.Context(), name); err != nil {
		s.t.Error(err)
		return
	}
	if err := compare(s.vol.SnapshotDir(name), s.db.now()); err != nil {
		s.t.Errorf("snapshot %s: %v", name, err)
	}
	s.must(s.t.Context(), "verify", s.vol.Mount, "--read-data")
}

// TestFullState: the disk of the state is full while the database writes, at a barrier, in a seal, in a prune and at a mount. The database
// notices nothing, snapshots fail for want of space, and with space there are snapshots again.
func TestFullState(t *testing.T) {
	for _, fstype := range longer("ext4", "xfs") {
		t.Run(fstype, func(t *testing.T) {
			n := seed(t)
			disk := rig.NewDisk(t, fstype, small, "")
			s := &subject{t: t, vol: rig.Mounted(t, volume.Options{State: filepath.Join(disk.Dir, "state")})}
			s.db = newDatabase(t, s.vol.Mount, n)
			defer func() { s.db.close() }()
			s.right("a")
			s.db.overwrite(10)
			s.right("b")

			free := fill(t, disk.Dir)
			s.writes()
			s.refusal("space", "snapshot", s.vol.Mount, "--name", "full")
			s.writes()
			s.command("delete", s.vol.Mount, "a")
			s.command("prune", s.vol.Mount)
			free()
			s.right("c")

			free = fill(t, disk.Dir)
			s.writes()
			s.db.close()
			for _, step := range []func() error{
				func() error { return s.vol.Umount(t.Context()) }, func() error { return s.vol.Start(t.Context()) },
			} {
				if err := step(); err != nil {
					t.Fatal("with a full disk:", err)
				}
			}
			s.db.open()
			s.writes()
			s.refusal("space", "snapshot", s.vol.Mount, "--name", "full")
			if err := compare(s.vol.Mount, s.db.now()); err != nil {
				t.Errorf("the volume: %v", err)
			}
			free()
			s.right("d")
		})
	}
}

// writes is enough for the epoch's files to grow, and changes what a snapshot may need.
func (s *subject) writes() {
	for range 10 {
		s.db.overwrite(30)
		s.db.add()
		s.db.rename()
	}
}

// TestFullBacking: the database gets the backing's own error, when it writes or, with the write-back cache, when it syncs; what it has is
// in the next snapshot; and with space it goes on.
func TestFullBacking(t *testing.T) {
	for _, cache := range longer("writeback", "through") {
		t.Run(cache, func(t *testing.T) {
			n := seed(t)
			disk := rig.NewDisk(t, "ext4", small, "")
			s := &subject{t: t, vol: rig.Mounted(t, volume.Options{
				Backing: filepath.Join(disk.Dir, "backing"), State: filepath.Join(t.TempDir(), "state"), Cache: cache,
			})}
			s.db = newDatabase(t, s.vol.Mount, n)
			defer s.db.close()
			s.right("a")
			free := fill(t, disk.Dir)
			path := filepath.Join(s.vol.Mount, "big")
			if err := writeSynced(path, 8<<20); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("writing to a full disk: %v, want ENOSPC", err)
			}
			s.db.overwrite(10) // takes no space
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
			s.right("full")
			free()
			s.db.overwrite(10)
			if err := writeSynced(path, 8<<20); err != nil {
				t.Error("with space:", err)
			}
			s.db.files["big"] = make([]byte, 8<<20)
			s.right("b")
		})
	}
}

// writeSynced writes zeros, and returns the first error of write, fsync and close.
func writeSynced(path string, n int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, n))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
