package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix runs go-fuse's suite, and all of it is right here.
func TestPosix(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		for name, fn := range posixtest.All {
			switch name {
			case "FcntlFlockLocksFile", "OpenSymlinkRace": // its own runner leaves them out too
				continue
			}
			t.Run(name, func(t *testing.T) {
				dir := filepath.Join(w.mnt, name)
				w.must(os.Mkdir(dir, 0o755))
				fn(t, dir)
			})
		}
	})
}
