package cow

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDeathDuringScan: what was changed behind the volume's back is in the next snapshot, also if the server is killed while it looks for it, and an
// earlier mount had looked to the end.
func TestDeathDuringScan(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	w.snapshot()
	w.die()
	w.open(true) // looks, if the first mount had no reason to
	w.must(w.v.WaitScan(t.Context()))
	w.close()
	w.must(os.WriteFile(filepath.Join(w.back, "f"), fill(2, blockSize), 0o600))
	w.wait = make(chan struct{})
	w.open(false)
	w.die()
	close(w.wait)
	w.open(true)
	if p := w.snapshot().inodes[f].bytes(); len(p) == 0 || p[0] != 2 {
		t.Error("the snapshot has the old content")
	}
}
