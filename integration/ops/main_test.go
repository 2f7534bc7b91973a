// Package ops tests what an administrator does to a running volume: upgrades, systemd, fstab; and servers that hang.
package ops

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var (
	upgrades = flag.Int("ops.upgrades", 3, "how many upgrades each test does under load")
	hangs    = flag.Int("ops.hangs", 1, "how often a server is stopped under load")
)

// TestMain fails the package when tests leave mounts, processes or files behind.
func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const otherVersion = "v0.0.0-other"

// other builds another version of the binary once a test run. It lies where rig.Main removes it.
var other = sync.OnceValues(func() (string, error) {
	return volume.Build(context.Background(), filepath.Join(os.TempDir(), "bin", "other"), "-ldflags", "-X main.version="+otherVersion)
})

func otherBinary(t *testing.T) string {
	t.Helper()
	bin, err := other()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
