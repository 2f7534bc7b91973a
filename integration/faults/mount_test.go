package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"graphvol/integration/volume"
)

// TestMountSweep fails every call of an unmount and of the mount that follows. A mount that fails says
// why in one line, and the next one, without the fault, is right; a volume that was unmounted in trouble has
// lost nothing.
func TestMountSweep(t *testing.T) {
	if !*sweepAll {
		t.Skip("takes long: -faults.all")
	}
	s := newSubject(t, seed(t))
	s.disk.Arm(Fault{At: 1 << 30})
	if err := s.cycle(); err != nil {
		t.Fatal(err)
	}
	s.db.open()
	_, count := s.disk.Disarm()
	all := faults(count)
	t.Logf("unmounting and mounting makes %v calls: %d faults", count, len(all))
	for i := range all {
		f := all[i]
		t.Run(fmt.Sprintf("%v", &f), func(t *testing.T) { s.failMount(t, f) })
	}
}

// cycle unmounts the volume, and mounts it again; the database rests meanwhile. It returns the mount's error.
func (s *subject) cycle() error {
	s.t.Helper()
	s.db.overwrite(5)
	s.db.add()
	s.db.rename()
	s.db.close()
	if err := s.vol.Umount(s.t.Context()); err != nil {
		s.clear(err)
		if volume.Mounted(s.vol.Mount) {
			s.t.Errorf("a state directory in trouble keeps the volume mounted: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), mountLimit)
	defer cancel()
	return s.vol.Start(ctx)
}

// mountLimit is how long a mount may take to fail: a server that dies is started again some times.
const mountLimit = time.Minute

// failMount is one cycle with a fault.
func (s *subject) failMount(t *testing.T, f Fault) {
	outer, inner := s.t, s.db.t
	s.t, s.db.t = t, t
	defer func() { s.t, s.db.t = outer, inner }()
	s.disk.Arm(f)
	err := s.cycle()
	s.clear(err)
	hit, _ := s.disk.Disarm()
	t.Logf("failed: %d calls, the first %v; the mount: %v", len(hit), hit[:min(1, len(hit))], err)
	if err == nil && s.command("snapshots", s.vol.Mount) != nil { // mounted without the index: it wants another server
		if err = s.command("upgrade", s.vol.Mount); err != nil {
			t.Error(err)
		}
	} else if err != nil {
		s.mountAgain()
	}
	s.db.open()
	s.db.overwrite(5)
	s.round++
	s.check(map[string]map[string][]byte{})
}

// mountAgain mounts when the processes of the mount that failed have ended.
func (s *subject) mountAgain() {
	s.t.Helper()
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(50 * time.Millisecond) {
		err := s.vol.Start(s.t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the mount after the fault: %v", err)
		}
	}
}
