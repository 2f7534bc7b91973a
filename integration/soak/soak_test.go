package soak

import (
	"flag"
	"os"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var (
	snapshots = flag.Int("soak.snapshots", 40, "snapshots that TestSnapshots takes")
	seedFlag  = flag.Uint64("soak.seed", 0, "seed; 0: from the clock")
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return uint64(time.Now().UnixNano())
}

// TestSnapshots: thousands of snapshots come and go under one server, and nothing grows.
func TestSnapshots(t *testing.T) {
	t.Parallel() // it waits for the disk more than it works
	v := rig.Mounted(t, volume.Options{})
	u := newUser(t, v, seed())
	start := time.Now()
	tenth := max(*snapshots/10, 25)
	var early, late Measure
	for u.n < *snapshots {
		u.cycle(t.Context())
		if u.n%tenth != 0 && u.n < *snapshots {
			continue
		}
		late = u.measure(early)
		if early.Goroutines == 0 {
			early = late
		}
	}
	t.Logf("%d snapshots in %v", u.n, time.Since(start).Round(time.Second))
	flat(t, early, late, keptSnapshots)
	u.run("verify", v.Mount, "--read-data")
	u.must(v.Umount(t.Context()))
	checkIndex(t, v, keptSnapshots)
}
