package cow

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

// A snapshot is complete before the backing's disk has what it holds. If a power cut takes a block back and the change time has reached the disk,
// the next snapshot must notice.
func TestSealedAndLostAgain(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full=%v", full), func(t *testing.T) {
			w := newWorld(t)
			f := w.create("f", fill(1, 8*blockSize))
			if !full {
				w.snapshot()
				w.settled()
			}
			w.write(f, fill(2, 100), 3*blockSize)
			w.v.settler.after = time.Hour
			w.snapshot()
			w.die()
			w.must(os.WriteFile(w.find(f), fill(1, 8*blockSize), 0o600))
			w.loseEpochs()
			w.lieAboutTimes()
			w.open(false)
			e := w.barrier()
			if e.Full() != full {
				t.Errorf("the next snapshot is full: %v", e.Full())
			}
			im, err := w.seal(e)
			w.must(err)
			if !bytes.Equal(im.inodes[f].bytes(), fill(1, 8*blockSize)) {
				t.Error("it has what the disk hasn't")
			}
			w.settled()
			w.die()
			w.loseEpochs()
			w.open(false)
			if e := w.barrier(); e.Full() {
				t.Error("full again, though everything is on the disk")
			}
		})
	}
}

// settled waits until the backing's disk has what snapshots have.
func (w *world) settled() {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		nums, err := w.db.Epochs()
		w.must(err)
		val, err := w.db.Meta(metaUnsettled)
		w.must(err)
		if len(nums) == 0 && val == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("epochs %d are still in the index, full: %q", nums, val)
		}
	}
}
