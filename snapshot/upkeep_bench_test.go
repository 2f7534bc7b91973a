package snapshot

import (
	"math/rand/v2"
	"testing"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

// benchHistory is a file of 256 MiB that can't be compressed, and a second snapshot with one block in a hundred changed.
func benchHistory(b *testing.B, r *Repo) (snaps []index.Snapshot) {
	v := newFakeVolume(rand.New(rand.NewPCG(1, 40)))
	in := v.add(tree.ModeRegular | 0o600)
	v.noise(in, 0, 1<<16)
	snaps = append(snaps, seal(b, r, v.barrier(true)))
	for range 1 << 16 / 100 {
		v.noise(in, v.r.Uint64N(1<<16), 1)
	}
	return append(snaps, seal(b, r, v.barrier(false)))
}

// BenchmarkVerify reads and hashes all data: the packs are in the page cache.
func BenchmarkVerify(b *testing.B) {
	r := newRepo(b)
	snaps := benchHistory(b, r)
	for b.Loop() {
		res, err := r.Verify(b.Context(), snaps, VerifyOptions{ReadData: true})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(res.Bytes)
	}
}

// BenchmarkPruneNothing is what marking and looking through the index costs.
func BenchmarkPruneNothing(b *testing.B) {
	r := newRepo(b)
	benchHistory(b, r)
	for b.Loop() {
		if _, err := r.Prune(b.Context(), PruneOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
