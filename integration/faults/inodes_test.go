package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestNoInodes: the state's disk has space, but can't have one more file, which is what a full xfs is like. The volume works, can be unmounted and
// mounted, and with room there are snapshots again.
func TestNoInodes(t *testing.T) {
	n := seed(t)
	dir := rig.Tmpfs(t, "128m,nr_inodes=400")
	s := &subject{t: t, vol: rig.Mounted(t, volume.Options{State: filepath.Join(dir, "state")})}
	s.db = newDatabase(t, s.vol.Mount, n)
	defer func() { s.db.close() }()
	s.right("a")
	s.db.overwrite(10)

	free := fillInodes(t, dir, "a")
	s.writes()
	s.refusal("space", "snapshot", s.vol.Mount, "--name", "full")
	s.writes()
	s.db.close()
	if err := s.vol.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	freeToo := fillInodes(t, dir, "b") // with those that the unmount gave back
	if err := s.vol.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.db.open()
	s.writes()
	if err := compare(s.vol.Mount, s.db.now()); err != nil {
		t.Errorf("the volume: %v", err)
	}
	free()
	freeToo()
	s.right("b")
}

// fillInodes makes files until there can't be one more.
func fillInodes(t *testing.T, dir, name string) (free func()) {
	t.Helper()
	var made []string
	for {
		path := filepath.Join(dir, fmt.Sprint(name, len(made)))
		f, err := os.Create(path)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		made = append(made, path)
	}
	return func() {
		for _, path := range made {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	}
}
