package cow

import (
	"fmt"
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

// TestTakeoverGoesOn: the server that takes over goes on with the epoch in which the one before was killed, without waiting for the disk, and
// what either of them changed is in the next snapshot.
func TestTakeoverGoesOn(t *testing.T) {
	w := newWorld(t)
	old := w.create("old", fill(1, 8*blockSize))
	w.snapshot()
	w.write(old, fill(2, blockSize), 0)
	made := w.create("made", fill(3, blockSize))
	number := w.v.Epoch()
	for range 3 {
		w.die()
		w.open(true)
		if n := w.v.Epoch(); n != number {
			t.Fatalf("epoch %d, want %d", n, number)
		}
		if len(*w.v.carried.Load()) != 0 {
			t.Error("an epoch is there twice")
		}
		r := w.v.run.Load()
		for _, ino := range []uint64{old, made} {
			if ok := r.announced([]want{wantRange(ino, 0, 1)}); ok != (ino == made) {
				t.Errorf("a change of inode %d is announced: %v", ino, ok)
			}
		}
	}
	w.write(old, fill(4, blockSize), 4*blockSize)
	w.write(made, fill(5, blockSize), 5*blockSize)
	im := w.snapshot()
	for ino, blocks := range map[uint64]map[uint64]byte{old: {0: 2, 1: 1, 4: 4}, made: {0: 3, 5: 5}} {
		for b, want := range blocks {
			if p := im.inodes[ino].blocks[b]; len(p) == 0 || p[0] != want {
				t.Errorf("inode %d, block %d isn't what was written", ino, b)
			}
		}
	}
}

// TestTakeoverAfterDamage: an epoch whose marks or intents may lack something isn't gone on with.
func TestTakeoverAfterDamage(t *testing.T) {
	for name, harm := range map[string]func(w *world, n uint64) error{
		"marks": func(w *world, n uint64) error {
			return os.Remove(filepath.Join(w.state, "epochs", fmt.Sprint(n)+".names"))
		},
		"marker": func(w *world, n uint64) error { return w.v.marker(n).unsafe() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			f := w.create("f", nil)
			w.snapshot()
			w.write(f, fill(1, blockSize), 0)
			n := w.v.Epoch()
			w.die()
			w.must(harm(w, n))
			w.open(true)
			if w.v.Epoch() == n {
				t.Error("the epoch goes on")
			}
			if p := w.snapshot().inodes[f].bytes(); len(p) == 0 || p[0] != 1 {
				t.Error("a change is not in the snapshot")
			}
		})
	}
}

// TestOldPreimagesGo: also those that a server was removing when it was killed.
func TestOldPreimagesGo(t *testing.T) {
	w := newWorld(t)
	w.die()
	for _, d := range []string{"preimages", "preimages.old-1"} {
		w.must(os.MkdirAll(filepath.Join(w.state, d), 0o755))
		w.must(os.WriteFile(filepath.Join(w.state, d, "7"), fill(1, 100), 0o600))
	}
	w.open(true)
	w.v.images.sweeping.Wait()
	for _, pattern := range []string{"preimages/*", "preimages.old-*"} {
		if left, _ := filepath.Glob(filepath.Join(w.state, pattern)); len(left) > 0 {
			t.Error("left behind:", left)
		}
	}
}
