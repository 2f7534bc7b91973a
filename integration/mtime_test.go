package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// TestSnapshotHasTheMtimeThatStatShows: the kernel owns the times of a file whose pages it caches, and the backing gets one of its own with
// every page that is written back. A snapshot has the kernel's.
func TestSnapshotHasTheMtimeThatStatShows(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			v := mounted(t, volume.Options{Cache: cache})
			path := filepath.Join(v.Mount, "f")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for i := range 10 {
				// The second write falls into the same tick of the clock as the first, mostly: its mtime is the one that is saved already.
				for range 2 {
					if _, err := f.WriteAt([]byte("page"), int64(i)*4096); err != nil {
						t.Fatal(err)
					}
					if err := unix.Fdatasync(int(f.Fd())); err != nil {
						t.Fatal(err)
					}
				}
				var want, got unix.Stat_t
				name := fmt.Sprint("s", i)
				if _, err := v.Snapshot(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				if err := unix.Fstat(int(f.Fd()), &want); err != nil {
					t.Fatal(err)
				}
				if err := unix.Stat(filepath.Join(v.SnapshotDir(name), "f"), &got); err != nil {
					t.Fatal(err)
				}
				if got.Mtim != want.Mtim {
					t.Errorf("snapshot %s: mtime %v, the mount shows %v", name, got.Mtim, want.Mtim)
				}
			}
		})
	}
}
