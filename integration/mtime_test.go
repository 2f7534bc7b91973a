package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestSnapshotHasTheMtimeThatStatShows: the kernel owns the times of a file whose pages it caches, and the backing gets one of its own with
// every page that is written back. A snapshot has the kernel's.
func TestSnapshotHasTheMtimeThatStatShows(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			v := rig.Mounted(t, volume.Options{Cache: cache})
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

// TestSnapshotHasTheMtimeOfShortWork: a file that is made, written and closed within one tick of the clock has its mtime from its making,
// as the kernel sees it; the backing gets the pages later. So it is with one that is opened again at once.
func TestSnapshotHasTheMtimeOfShortWork(t *testing.T) {
	v := rig.Mounted(t, volume.Options{Cache: "writeback"})
	write := func(path string, flags int) {
		f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		path := filepath.Join(v.Mount, fmt.Sprint(i))
		write(path, os.O_CREATE|os.O_EXCL)
		if i%2 == 1 {
			write(path, os.O_APPEND)
		}
	}
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		var want, got unix.Stat_t
		if err := unix.Stat(filepath.Join(v.Mount, fmt.Sprint(i)), &want); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(filepath.Join(v.SnapshotDir("s"), fmt.Sprint(i)), &got); err != nil {
			t.Fatal(err)
		}
		if got.Mtim != want.Mtim {
			t.Errorf("file %d: mtime %v in the snapshot, the mount shows %v", i, got.Mtim, want.Mtim)
		}
	}
}
