// Package integration tests graphvol as a whole: the built binary, the real kernel, and programs that a DBA runs.
package integration

import (
	"flag"
	"os"
	"testing"

	"graphvol/integration/rig"
)

var (
	modelDuration = flag.Duration("model.duration", 0, "run model tests for this long instead of some seconds")
	modelSeed     = flag.Uint64("model.seed", 0, "seed of model tests; 0 chooses one and prints it")
)

// TestMain fails the package when tests leave mounts, processes or files behind.
func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
