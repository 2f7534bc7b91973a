package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"graphvol/integration/rig"
)

var (
	matrix = flag.Bool("cluster.matrix", false, "every trouble at every moment of a snapshot, which takes half an hour")
	runs   = flag.Int("cluster.runs", 0, "troubles at random moments")
	seed   = flag.Uint64("cluster.seed", 0, "of random moments; 0 chooses one")
)

func chosenSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64()
}

// TestMatrix: whatever dies, hangs or is cut off at whatever moment of a snapshot, that is on all volumes or on none, no gate stays closed, and the next one succeeds.
func TestMatrix(t *testing.T) {
	if !*matrix {
		t.Skip("takes long: -cluster.matrix")
	}
	for _, tr := range troubles() {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			s := newScene(start(t, matrixOptions(t)), chosenSeed())
			for i, m := range moments() {
				s.during(fmt.Sprintf("s%d", i), m, tr)
			}
		})
	}
}

func matrixOptions(t testing.TB) Options {
	volumes := both()
	volumes[1].Backing = filepath.Join(rig.NewDisk(t, "ext4", 2<<30, "").Dir, "%s")
	return Options{Net: network(t, 3), Volumes: volumes, Extra: metadata, Debug: true, Hooks: true, Hold: 3 * time.Second}
}

// TestPowerCuts is the part of TestMatrix where machines die, with the power of their disks: what was synced is there afterwards, whatever else had come that far.
func TestPowerCuts(t *testing.T) {
	if !*matrix {
		t.Skip("takes long: -cluster.matrix")
	}
	for _, tr := range deaths() {
		disks := newDisks(t)
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			s := onDisks(t, disks)
			for i, m := range moments() {
				s.during(fmt.Sprintf("s%d", i), m, tr)
			}
		})
	}
}

// TestPowerCut is TestPowerCuts for one machine and one moment.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	onDisks(t, newDisks(t)).during("s", moments()[2], deaths()[0])
}

// newDisks makes a disk for each node. (Not in the directory of a part, whose name makes the paths of sockets too long.)
func newDisks(t *testing.T) map[string]*rig.Disk {
	t.Helper()
	disks := make(map[string]*rig.Disk)
	for _, name := range []string{"a", "b", "c"} {
		disks[name] = rig.NewDisk(t, "ext4", 1<<30, "")
	}
	return disks
}

// onDisks starts a cluster whose nodes have all that is theirs on disks of their own.
func onDisks(t *testing.T, disks map[string]*rig.Disk) *scene {
	t.Helper()
	o := Options{Net: network(t, 3), Extra: metadata, Debug: true, Hooks: true, Hold: 3 * time.Second}
	o.Disk = func(name string) string { return disks[name].Dir }
	s := newScene(start(t, o), chosenSeed())
	s.disks = disks
	for _, d := range disks {
		if err := d.Sync(); err != nil { // what an administrator has made, such as configurations
			t.Fatal(err)
		}
	}
	return s
}

// TestRandomTroubles is TestMatrix at random moments.
func TestRandomTroubles(t *testing.T) {
	t.Parallel()
	if *runs == 0 {
		t.Skip("takes long: -cluster.runs N")
	}
	s := newScene(start(t, matrixOptions(t)), chosenSeed())
	all := troubles()
	for i := range *runs {
		tr := all[s.rng.IntN(len(all))]
		if tr.lasts == long && s.rng.IntN(5) > 0 {
			tr.lasts = short
		}
		at := time.Duration(s.rng.IntN(300)) * time.Millisecond
		var begun time.Time
		m := moment{
			fmt.Sprintf("%s after %v", tr.name, at), func(*scene) { begun = time.Now() }, func(*scene) bool { return time.Since(begun) >= at }, func(*scene) {}, false,
		}
		t.Logf("%d: %s, for %v", i, m.name, tr.lasts)
		s.during(fmt.Sprintf("s%d", i), m, tr)
		if t.Failed() {
			return
		}
	}
}
