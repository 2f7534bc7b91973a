// Package damage tests what becomes of a volume whose state directory is damaged: bytes flipped, files cut, files and directories removed.
//
// Whatever is damaged, one of these must be so:
//
//   - it does no harm: verify is clean, all snapshots read right, and the next snapshot is right
//   - verify names it, for each snapshot of which something can't be read
//   - the state is refused in one line that says what to do, and graphvol rebuild makes it usable again
//
// and never is a wrong byte served.
package damage

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"graphvol/integration/rig"
)

var (
	sweepStep    = flag.Int("damage.step", 0, "flip every n-th byte of every file of the small store; 0: only some")
	sweepOnly    = flag.String("damage.only", "", "sweep only files of the state whose names begin so")
	sweepRuns    = flag.Int("damage.runs", 60, "how many bytes of the small store are flipped, in all files together")
	long         = flag.Bool("damage.long", false, "try every way to ruin an index or a store, every file and length of a cut, instead of some")
	largeMiB     = flag.Int("damage.large", 24, "size in MiB of the large store")
	largeHits    = flag.Int("damage.hits", 6, "how often the large store is damaged")
	rebuildKills = flag.Int("damage.kills", 5, "how many rebuilds are killed")
	seedFlag     = flag.Uint64("damage.seed", 0, "seed; 0 chooses one and prints it")
)

// TestMain fails the package when tests leave mounts, processes or files behind.
func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// some gives a few of a list's elements, or with -damage.long all of them.
func some[E any](r *rand.Rand, list []E, n int) []E {
	if *long || n >= len(list) {
		return list
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:n]
}

// random is a source of numbers whose seed is told when the test fails.
func random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run again with -damage.seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}
