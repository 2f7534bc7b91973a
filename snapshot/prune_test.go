package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

func TestShortSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 30))
	want := map[uint64]bool{}
	var s shortSet
	for range 5000 {
		k := 1 + rnd.Uint64N(3000)
		if s.has(k) != want[k] || s.add(k) == want[k] {
			t.Fatalf("of %d", k)
		}
		want[k] = true
	}
	if s.n != len(want) || s.has(4000) {
		t.Fatalf("%d elements, want %d", s.n, len(want))
	}
}

func prune(t *testing.T, r *Repo) PruneResult {
	t.Helper()
	res, err := r.Prune(t.Context(), PruneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func storeBytes(t *testing.T, r *Repo) (packs, manifests int64) {
	t.Helper()
	list, err := r.target.List(t.Context(), "packs/")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		packs += o.Size
	}
	if list, err = r.target.List(t.Context(), "manifests/"); err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		manifests += o.Size
	}
	return packs, manifests
}

// noise fills blocks with what can't be compressed.
func (v *fakeVolume) noise(in *fakeInode, first, n uint64) {
	v.write(in, first, n, false)
	for b := first; b < first+n; b++ {
		p := make([]byte, BlockSize)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], v.r.Uint64())
		}
		in.blocks[b] = p
	}
	v.zeroTail(in)
}

// sparseHistory makes a first snapshot of which most is overwritten by the second.
func sparseHistory(t *testing.T, r *Repo) *history {
	t.Helper()
	h := &history{vol: newFakeVolume(rand.New(rand.NewPCG(3, 31))), models: map[string]*fakeSource{}}
	in := h.vol.add(tree.ModeRegular | 0o600)
	h.vol.noise(in, 0, 320)
	h.seal(t, r, true)
	h.vol.noise(in, 0, 220)
	h.seal(t, r, false)
	return h
}

func TestPruneFreesWhatWasDeleted(t *testing.T) {
	r := newRepo(t)
	h := sparseHistory(t, r)
	if res := prune(t, r); res.RemovedChunks != 0 || res.RemovedPacks != 0 || res.RewrittenPacks != 0 || res.FreedBytes != 0 {
		t.Fatalf("with nothing to remove: %+v", res)
	}
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	packs, manifests := storeBytes(t, r)
	dry, err := r.Prune(t.Context(), PruneOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if p, m := storeBytes(t, r); p != packs || m != manifests {
		t.Fatal("a dry run changed the store")
	}
	var last PruneProgress
	res, err := r.Prune(t.Context(), PruneOptions{Progress: func(p PruneProgress) { last = p }})
	if err != nil || res.RewrittenPacks != 1 || res.RemovedChunks < 6 || res.FreedBytes < 180*BlockSize {
		t.Fatalf("%+v, %v", res, err)
	}
	if dry != res {
		t.Errorf("the dry run said %+v, it was %+v", dry, res)
	}
	if last.Bytes != last.TotalBytes || last.Bytes == 0 {
		t.Errorf("progress ended at %+v", last)
	}
	if p, _ := storeBytes(t, r); p != res.StoreBytes || p != packs-res.FreedBytes {
		t.Errorf("the store has %d bytes, had %d, %+v", p, packs, res)
	}
	h.check(t, r)
	checkNoStrayPacks(t, r)
	if res := prune(t, r); res.RemovedChunks != 0 || res.FreedBytes != 0 {
		t.Errorf("the second prune did %+v", res)
	}
	if err := r.Delete(t.Context(), h.snaps[1:]); err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	if p, m := storeBytes(t, r); p != 0 || m != 0 {
		t.Errorf("%d bytes of packs and %d of manifests of no snapshot", p, m)
	}
	if err := r.Index().Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPruneKeepsWhatAReaderHasOpen(t *testing.T) {
	r := newRepo(t)
	h := newHistory(t, r, rand.Uint64(), 3)
	rd, err := r.Reader(t.Context(), h.snaps[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), h.snaps[1:2]); err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	err = rd.EachInode(t.Context(), func(in tree.Inode) error {
		return compareInode(t.Context(), rd, h.models[h.snaps[1].ID].inos[in.Ino])
	})
	if err != nil {
		t.Errorf("reading a deleted snapshot: %v", err)
	}
	if err := rd.Close(); err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	h.check(t, r)
}

// TestHold: what is held isn't deleted, also after the repository was opened anew, and what is deleted with it stays too.
func TestHold(t *testing.T) {
	state := t.TempDir()
	r := openRepo(t, state)
	h := newHistory(t, r, rand.Uint64(), 3)
	pending, err := r.Begin("pending", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Hold("why", []index.Snapshot{h.snaps[0], pending}); !errors.Is(err, ErrNotComplete) {
		t.Errorf("holding a pending one: %v", err)
	}
	if err := r.Hold("why", []index.Snapshot{{ID: "none", State: index.StateComplete}}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("holding what isn't there: %v", err)
	}
	if err := errors.Join(r.Hold("audit", h.snaps[1:2]), r.Abandon(pending, io.ErrUnexpectedEOF)); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	r = openRepo(t, state)
	defer func() { closeRepo(t, r) }()
	if err := r.Delete(t.Context(), h.snaps[:2]); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "audit") {
		t.Errorf("delete: %v", err)
	}
	h.check(t, r)
	if err := errors.Join(r.Hold("", h.snaps[1:2]), r.Delete(t.Context(), h.snaps[:2])); err != nil {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	state := t.TempDir()
	r := openRepo(t, state)
	defer func() { closeRepo(t, r) }()
	h := newHistory(t, r, rand.Uint64(), 5)
	pending, err := r.Begin("pending", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), []index.Snapshot{h.snaps[0], pending}); !errors.Is(err, ErrPending) {
		t.Errorf("delete of a pending snapshot: %v", err)
	}
	if err := r.Delete(t.Context(), []index.Snapshot{h.snaps[0], {ID: "none"}}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("delete of what isn't there: %v", err)
	}
	if err := r.Abandon(pending, io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	h.check(t, r)
	// Twice the same, a failed one, and one in the middle of the chain.
	if err := r.Delete(t.Context(), []index.Snapshot{h.snaps[1], h.snaps[1], pending, h.snaps[2]}); err != nil {
		t.Fatal(err)
	}
	if all, err := r.Snapshots(); err != nil || len(all) != 3 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	h.check(t, r)
	// What lets the chain have gaps is kept as long as it is needed, and no longer.
	if err := r.Delete(t.Context(), h.snaps[3:4]); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	list, err := r.deleted()
	if err != nil || len(list.Manifests) > 2 || list.Manifests[h.snaps[3].ID] != h.snaps[3].ManifestSHA256 {
		t.Errorf("list of deleted snapshots: %v, %v", list, err)
	}
	h.check(t, r)

	// After the newest is gone, an incremental one would be relative to nothing, in the next process too.
	if err := r.Delete(t.Context(), h.snaps[4:]); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	r = openRepo(t, state)
	snap, err := r.Begin("", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.vol.step()
	if _, err := r.Seal(t.Context(), snap, h.vol.barrier(false), nil); !errors.Is(err, errParentGone) {
		t.Errorf("incremental seal without its parent: %v", err)
	}
	h.seal(t, r, true)
	h.check(t, r)
}

// TestPruneBesideSeals prunes and deletes while snapshots are sealed and read.
func TestPruneBesideSeals(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRepo(t)
	h := newHistory(t, r, seed, 1)
	var mu sync.Mutex // of h.models
	sealing, stop := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error {
		defer stop()
		return sealMany(ctx, r, h, &mu, 15)
	})
	g.Go(func() error {
		rnd := rand.New(rand.NewPCG(seed, 32))
		for sealing.Err() == nil {
			if err := deleteSome(ctx, r, rnd); err != nil {
				return err
			}
			if _, err := r.Prune(ctx, PruneOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		rnd := rand.New(rand.NewPCG(seed, 33))
		for sealing.Err() == nil {
			if err := readOne(ctx, r, h, &mu, rnd); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	h.check(t, r)
	checkNoStrayPacks(t, r)
	if err := r.Index().Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func sealMany(ctx context.Context, r *Repo, h *history, mu *sync.Mutex, n int) error {
	for range n {
		for range 20 {
			h.vol.step()
		}
		newest, ok, err := r.Newest()
		if err != nil {
			return err
		}
		sealed, err := r.Index().SealedEpoch()
		if err != nil {
			return err
		}
		src := h.vol.barrier(!ok || newest.Epoch < sealed)
		snap, err := r.Begin("", BeginOptions{Tags: testTags(src)})
		if err != nil {
			return err
		}
		mu.Lock()
		h.models[snap.ID] = src
		mu.Unlock()
		// The parent may be deleted before the seal begins.
		if _, err := r.Seal(ctx, snap, src, nil); err != nil && !errors.Is(err, errParentGone) && !errors.Is(err, ErrNoSnapshot) {
			return err
		}
	}
	return nil
}

func complete(r *Repo) ([]index.Snapshot, error) {
	all, err := r.Snapshots()
	return slices.DeleteFunc(all, func(s index.Snapshot) bool { return s.State == index.StatePending }), err
}

// deleteSome deletes a few snapshots, now and then the newest.
func deleteSome(ctx context.Context, r *Repo, rnd *rand.Rand) error {
	all, err := complete(r)
	if err != nil || len(all) < 4 {
		return err
	}
	gone := []index.Snapshot{all[rnd.IntN(len(all)-1)]}
	if rnd.IntN(5) == 0 {
		gone[0] = all[len(all)-1]
	}
	return r.Delete(ctx, gone)
}

func readOne(ctx context.Context, r *Repo, h *history, mu *sync.Mutex, rnd *rand.Rand) error {
	all, err := complete(r)
	all = slices.DeleteFunc(all, func(s index.Snapshot) bool { return s.State != index.StateComplete })
	if err != nil || len(all) == 0 {
		return err
	}
	s := all[rnd.IntN(len(all))]
	mu.Lock()
	model := h.models[s.ID]
	mu.Unlock()
	if rnd.IntN(3) == 0 {
		var problem error
		_, err = r.Verify(ctx, []index.Snapshot{s}, VerifyOptions{ReadData: true, Report: func(p Problem) { problem = p.Err }})
		err = errors.Join(err, problem)
	} else {
		err = compareSnapshot(ctx, r, s, model)
	}
	if errors.Is(err, ErrNoSnapshot) { // deleted meanwhile
		return nil
	}
	return err
}

// TestPruneOfADamagedSnapshotRemovesNothing damages a node: what is below it isn't known.
func TestPruneOfADamagedSnapshotRemovesNothing(t *testing.T) {
	state := t.TempDir()
	r := openRepo(t, state)
	h := newHistory(t, r, 34, 2)
	loc, ok, err := r.Index().Locate(h.snaps[1].Root)
	if err != nil || !ok {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	flip(t, filepath.Join(state, "store", "packs", loc.Pack.String()[:2], loc.Pack.String()+".pack"), int(loc.Offset)+10)
	r = openRepo(t, state)
	defer closeRepo(t, r)
	before, _ := storeBytes(t, r)
	if _, err := r.Prune(t.Context(), PruneOptions{}); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("prune: %v", err)
	}
	if after, _ := storeBytes(t, r); after != before {
		t.Error("something was removed")
	}
	if err := r.Delete(t.Context(), h.snaps[1:]); err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	if p, m := storeBytes(t, r); p != 0 || m != 0 {
		t.Errorf("%d bytes of packs and %d of manifests of no snapshot", p, m)
	}
}

// TestPruneKeepsWhatARunningSealFound prunes after a seal has found a chunk stored that no snapshot needs any more.
func TestPruneKeepsWhatARunningSealFound(t *testing.T) {
	r := newRepo(t)
	h := sparseHistory(t, r)
	if err := r.Delete(t.Context(), h.snaps[:1]); err != nil {
		t.Fatal(err)
	}
	var old []byte
	for b := range uint64(SegmentBlocks) {
		old = append(old, h.models[h.snaps[0].ID].inos[h.vol.regular().Ino].blocks[b]...)
	}
	w := r.store.NewWriter(t.Context())
	defer w.Close()
	id, err := w.Put(old)
	if err != nil {
		t.Fatal(err)
	}
	before := prune(t, r)
	if p, err := r.store.Get(t.Context(), id, nil); err != nil || chunkstore.Sum(p) != id {
		t.Fatalf("the chunk is gone: %v", err)
	}
	written, err := w.Finish()
	if err != nil || len(written.Chunks) != 0 || before.RemovedChunks == 0 {
		t.Fatalf("stored %d chunks, %+v, %v", len(written.Chunks), before, err)
	}
	w.Close()
	prune(t, r)
	if _, err := r.store.Get(t.Context(), id, nil); !errors.Is(err, chunkstore.ErrNotFound) {
		t.Errorf("the chunk is still there: %v", err)
	}
	h.check(t, r)
}
