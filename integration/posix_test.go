package integration

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"graphvol/integration/volume"
)

// TestPOSIX runs go-fuse's suite on the binary's mount, in both cache modes.
func TestPOSIX(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			for name, test := range posixtest.All {
				t.Run(name, func(t *testing.T) { test(t, mounted(t, volume.Options{Cache: cache}).Mount) })
			}
		})
	}
}
