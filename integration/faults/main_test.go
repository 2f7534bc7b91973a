package faults

import (
	"flag"
	"os"
	"testing"

	"graphvol/integration/rig"
)

var (
	sweepAll  = flag.Bool("faults.all", false, "fail every call of a round, with every error, instead of a random choice; takes an hour")
	sweepRuns = flag.Int("faults.runs", 8, "how many faults are chosen at random without -faults.all")
	sweepKind = flag.String("faults.kind", "", "only calls of this kind fail, as fsync")
	sweepSeed = flag.Uint64("faults.seed", 0, "seed of the choice and of the data; 0 chooses one and prints it")
)

// longer gives the variants of a test: the first, or with -faults.all every one.
func longer(variants ...string) []string {
	if *sweepAll {
		return variants
	}
	return variants[:1]
}

// TestMain fails the package when tests leave mounts, processes or files behind.
func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
