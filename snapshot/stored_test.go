package snapshot

import (
	"math/rand/v2"
	"testing"
)

// A snapshot's stored bytes are what its seal added, to the byte; and it needs all of that for as long as it is there.
func TestStoredBytesAreWhatTheSealAdded(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 12)))
	var sum int64
	size := func() int64 {
		packs, manifests := storeBytes(t, r)
		return packs + manifests
	}
	for i := range mergeFrom { // so few packs that prune merges none
		for range 40 {
			v.step()
		}
		sum += seal(t, r, v.barrier(i == 0 || i == mergeFrom/2)).StoredBytes
		if n := size(); n != sum {
			t.Fatalf("after snapshot %d the store has %d bytes, the snapshots stored %d", i, n, sum)
		}
	}
	prune(t, r)
	if n := size(); n != sum {
		t.Errorf("%d bytes after a prune with nothing to remove, %d before", n, sum)
	}
}
