package faults

import (
	"strings"
	"syscall"
	"testing"
)

// TestIndexUnreadable: the state's disk can't read the index while the volume is mounted. The volume works without snapshots and says what to do; when
// the disk works again, that is all it takes.
func TestIndexUnreadable(t *testing.T) {
	s := newSubject(t, seed(t))
	s.right("a")
	s.db.overwrite(5)
	s.db.close()
	for _, step := range []func() error{
		func() error { return s.vol.Umount(t.Context()) }, s.disk.Unmount, s.disk.Mount, // so that nothing of the index is in memory
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	remedy := "graphvol upgrade " + s.vol.Mount
	s.disk.Arm(Fault{Kinds: Read, Below: "index.db", All: true, Errno: syscall.EIO})
	s.refusal("try again", "snapshots", s.vol.StateDir())
	if err := s.vol.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.db.open()
	s.writes()
	s.refusal(remedy, "snapshot", s.vol.Mount)
	if err := s.command("upgrade", s.vol.Mount); err != nil {
		t.Errorf("another server, while the disk still fails: %v", err)
	}
	s.refusal(remedy, "snapshot", s.vol.Mount)
	s.writes()
	if hit, _ := s.disk.Disarm(); len(hit) == 0 {
		t.Error("nothing failed")
	}
	if err := s.command(strings.Fields(remedy)[1:]...); err != nil {
		t.Error(err)
	}
	s.writes()
	s.right("b")
	s.writes()
	s.right("c")
}
