package snapshot

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// wastedHistory deletes the first of two snapshots: of its pack of 10 MiB a fifth is unused then.
func wastedHistory(t *testing.T, r *Repo) *history {
	t.Helper()
	h := &history{vol: newFakeVolume(rand.New(rand.NewPCG(7, 31))), models: map[string]*fakeSource{}}
	in := h.vol.add(tree.ModeRegular | 0o600)
	h.vol.noise(in, 0, 2560)
	h.seal(t, r, true)
	h.vol.noise(in, 0, 512)
	h.seal(t, r, false)
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestPruneMaxUnused: a pack that is worth rewriting only because much of the store is unused is rewritten if more is unused than may be;
// one that a copy has, only if that was asked for.
func TestPruneMaxUnused(t *testing.T) {
	percent := func(n int) *int { return &n }
	for _, c := range []struct {
		max       *int
		copied    bool
		rewritten int64
	}{{nil, false, 1}, {nil, true, 0}, {percent(30), false, 0}, {percent(10), false, 1}, {percent(10), true, 1}, {percent(0), true, 1}} {
		name := fmt.Sprintf("default, copied %t", c.copied)
		if c.max != nil {
			name = fmt.Sprintf("%d percent, copied %t", *c.max, c.copied)
		}
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			h := wastedHistory(t, r)
			if c.copied {
				copyPacks(t, r)
			}
			dry, err := r.Prune(t.Context(), PruneOptions{MaxUnused: c.max, DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			res, err := r.Prune(t.Context(), PruneOptions{MaxUnused: c.max})
			if err != nil || res.RewrittenPacks != c.rewritten || res != dry {
				t.Errorf("%+v, %v; the dry run said %+v", res, err, dry)
			}
			if wasted := res.UnusedBytes > 512*BlockSize; wasted == (c.rewritten > 0) {
				t.Errorf("%d bytes of %d are said to be unused", res.UnusedBytes, res.StoreBytes)
			}
			h.snaps = h.snaps[1:]
			h.check(t, r)
			checkNoStrayPacks(t, r)
		})
	}
}

// TestPruneFreesMostOfACopiedPack: a pack of which more is unused than needed is rewritten though a copy must get it again.
func TestPruneFreesMostOfACopiedPack(t *testing.T) {
	r := newRepo(t)
	h := sparseHistory(t, r)
	copyPacks(t, r)
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	if res := prune(t, r); res.RewrittenPacks != 1 {
		t.Errorf("%+v", res)
	}
}

// copyPacks notes that a remote has all packs.
func copyPacks(t *testing.T, r *Repo) {
	t.Helper()
	packs, err := r.Store().Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var have []index.RemoteObject
	for _, p := range packs {
		have = append(have, index.RemoteObject{Name: p.ID.Object(), Size: p.Size})
	}
	if err := r.Index().SetRemoteObjects("r1", have, nil); err != nil {
		t.Fatal(err)
	}
}

// TestPruneTakesTheWorstFirst: of several packs those are rewritten that waste most of themselves, and no more than must be.
func TestPruneTakesTheWorstFirst(t *testing.T) {
	packs := map[chunkstore.PackID]*packUse{}
	for i := range 10 { // unused: 0, 4, 8 … 36 %; all: 18 %
		packs[chunkstore.PackID{byte(i)}] = &packUse{size: 100 << 20, live: int64(100-4*i)<<20 - packOverhead - entryOverhead, chunks: 1}
	}
	max := 10
	p := &pruner{opts: PruneOptions{MaxUnused: &max}}
	got := p.wasteful(packs)
	if len(got) != 3 || got[0] != (chunkstore.PackID{9}) || got[1] != (chunkstore.PackID{8}) || got[2] != (chunkstore.PackID{7}) {
		t.Errorf("rewrites %v", got)
	}
}
