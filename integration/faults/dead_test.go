package faults

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestDeadStateDisk: the disk of the state dies under a running volume, as ext4 and xfs stop when they lose their device: every call fails
// from then on, and so does a store to a mapped page. The database goes on, snapshots fail; and when the
// disk is back after an unmount, the next snapshot is right.
func TestDeadStateDisk(t *testing.T) {
	for _, fstype := range longer("xfs", "ext4") {
		t.Run(fstype, func(t *testing.T) {
			n := seed(t)
			disk := rig.NewDisk(t, fstype, 400<<20, "")
			s := &subject{t: t, vol: rig.Mounted(t, volume.Options{State: filepath.Join(disk.Dir, "state")})}
			s.db = newDatabase(t, s.vol.Mount, n)
			if _, err := s.vol.Snapshot(t.Context(), "before"); err != nil {
				t.Fatal(err)
			}
			if err := disk.CutPower(); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				s.db.overwrite(5)
				s.db.add()
				s.db.rename()
			}
			if s.command("snapshot", s.vol.Mount, "--name", "during") == nil {
				t.Error("a snapshot was stored on a dead disk")
			}
			s.db.overwrite(5)
			if err := compare(s.vol.Mount, s.db.now()); err != nil {
				t.Errorf("the volume: %v", err)
			}
			s.db.close()
			s.remount(disk)
			s.db.open()
			defer s.db.close()
			s.right("after")
		})
	}
}

// whenFree unmounts a disk as soon as the processes of a volume have ended: from a dead disk umount can't read who they are, and doesn't wait.
func whenFree(unmount func() error) error {
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(20 * time.Millisecond) {
		if err := unmount(); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
