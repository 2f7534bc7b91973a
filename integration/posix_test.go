package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestPOSIX runs go-fuse's suite on the binary's mount, in both cache modes.
func TestPOSIX(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			v := rig.Mounted(t, volume.Options{Cache: cache})
			for name, test := range posixtest.All {
				if name == "FcntlFlockLocksFile" {
					continue // fails on ext4 as well: flock and fcntl locks don't see each other
				}
				t.Run(name, func(t *testing.T) {
					dir := filepath.Join(v.Mount, name)
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					test(t, dir)
				})
			}
		})
	}
}
