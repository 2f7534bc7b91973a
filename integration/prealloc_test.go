package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestTruncateFreesWhatWasPreallocated: blocks beyond the end, as RocksDB preallocates them, go when the file is cut, though its
// last pages are still the kernel's alone; and they stay when the file grows into them.
func TestTruncateFreesWhatWasPreallocated(t *testing.T) {
	const ahead = 1 << 20
	tests := []struct {
		name    string
		written int
		size    int64
	}{
		{"to where it ends", 100_000, 100_000},
		{"to less", 600_000, 300_000},
		{"to more", 100_000, 300_000},
	}
	plain := filepath.Join(t.TempDir(), "f")
	for _, cache := range []string{"writeback", "through"} {
		v := rig.Mounted(t, volume.Options{Cache: cache})
		for _, tc := range tests {
			t.Run(cache+" "+tc.name, func(t *testing.T) {
				want := preallocateAndCut(t, plain, ahead, tc.written, tc.size)
				got := preallocateAndCut(t, filepath.Join(v.Mount, "f"), ahead, tc.written, tc.size)
				if got != want {
					t.Errorf("%d blocks of 512 bytes, a plain directory has %d", got, want)
				}
			})
		}
	}
}

// preallocateAndCut gives st_blocks of a file that was preallocated, written and truncated, when all of it is on the disk.
func preallocateAndCut(t *testing.T, path string, ahead int64, written int, size int64) int64 {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, ahead); err == unix.EOPNOTSUPP {
		t.Skip("no preallocation here")
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, written)); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}
