package soak

import (
	"flag"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var restarts = flag.Int("soak.restarts", 6, "restarts of the server in TestRestarts")

// TestRestarts: the server dies again and again between snapshots, and the volume is unmounted and mounted. The holder lives through the deaths
// of servers, and keeps the descriptors of unlinked files for as long as these are open; the state lives through all.
func TestRestarts(t *testing.T) {
	t.Parallel() // it waits for the disk more than it works
	v := rig.Mounted(t, volume.Options{})
	u := newUser(t, v, seed())
	third := *restarts / 3
	var early, late Measure
	for n := range *restarts {
		u.cycle(t.Context())
		u.cycle(t.Context())
		close := u.unlinked()
		u.must(v.KillServer(t.Context()))
		u.cycle(t.Context())
		close()
		if n == third { // the last time: the holder's figures are compared from here on
			u.must(v.Umount(t.Context()))
			u.must(v.Start(t.Context()))
		}
		if n%(third+1) == third {
			late = u.measure(early)
			if early.Goroutines == 0 {
				early = late
			}
		}
	}
	late = u.measure(early)
	flat(t, early, late, int64(len(u.kept)))
	u.must(v.Umount(t.Context()))
	checkIndex(t, v, len(u.kept))
	for range *restarts / 2 {
		u.must(v.Start(t.Context()))
		u.cycle(t.Context())
		u.must(v.Umount(t.Context()))
	}
	u.must(v.Start(t.Context()))
	late = u.measure(early)
	flat(t, early, late, int64(len(u.kept)))
}
