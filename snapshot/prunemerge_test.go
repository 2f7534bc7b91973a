package snapshot

import (
	"math/rand/v2"
	"testing"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// TestPruneMergesSmallPacks: each of many snapshots leaves a block that is still needed, and their packs become few.
func TestPruneMergesSmallPacks(t *testing.T) {
	const snapshots = 60
	r := newRepo(t)
	h := &history{vol: newFakeVolume(rand.New(rand.NewPCG(5, 31))), models: map[string]*fakeSource{}}
	in := h.vol.add(tree.ModeRegular | 0o600)
	h.vol.noise(in, 0, 32*snapshots)
	h.seal(t, r, true)
	for i := range uint64(snapshots) {
		h.vol.noise(in, 32*i, 1)
		h.seal(t, r, false)
	}
	if err := r.Delete(t.Context(), h.snaps[:snapshots-2]); err != nil {
		t.Fatal(err)
	}
	res := prune(t, r)
	packs, err := r.Store().Packs(t.Context())
	if err != nil || res.RewrittenPacks < snapshots-mergeFrom || len(packs) > mergeFrom {
		t.Errorf("%d packs (%v) after %+v", len(packs), err, res)
	}
	if p, _ := storeBytes(t, r); p != res.StoreBytes {
		t.Errorf("the store has %d bytes, prune said %+v", p, res)
	}
	h.check(t, r)
	checkNoStrayPacks(t, r)
	if res := prune(t, r); res.RewrittenPacks != 0 {
		t.Errorf("the second prune did %+v", res)
	}
}

// TestCrowded: what is merged gets into a higher tier, so that nothing is copied again and again.
func TestCrowded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 31))
	packs := map[chunkstore.PackID]*packUse{}
	add := func(live int64) {
		var id chunkstore.PackID
		for i := range id {
			id[i] = byte(rnd.Uint32())
		}
		packs[id] = &packUse{size: live, live: live, chunks: 1}
	}
	var copied, added int64
	for range 20_000 {
		n := 1000 + rnd.Int64N(50_000)
		added += n
		add(n)
		var live int64
		for _, id := range crowded(packs) {
			live += packs[id].live
			delete(packs, id)
		}
		if copied += live; live > 0 {
			add(live)
		}
		if len(crowded(packs)) > 0 {
			t.Fatal("merging makes a crowd")
		}
	}
	large := int(added / smallPack)
	if n := len(packs); n > large+7*mergeFrom {
		t.Errorf("%d packs of %d bytes", n, added)
	}
	if copied > 6*added {
		t.Errorf("%d bytes copied of %d", copied, added)
	}
	t.Logf("%d packs of %d MiB, each byte copied %.1f times", len(packs), added>>20, float64(copied)/float64(added))
}
