package snapshot

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
)

// readerOf opens a repository with an index of its own on a copy of the target of another one.
func readerOf(t *testing.T, from target.Local, w *Repo) *Repo {
	t.Helper()
	cfg := Config{State: t.TempDir(), Node: "node-2", Target: from}
	if _, err := Rebuild(t.Context(), cfg, filepath.Join(cfg.State, IndexName), RebuildOptions{KeepStore: true, Volume: w.VolumeID()}); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeRepo(t, r) })
	return r
}

// TestUpdate: a repository that only reads follows one that takes, deletes and prunes snapshots; what it lists can be read, all of it, and its index has no place
// that isn't there.
func TestUpdate(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newRepo(t)
	h := newHistory(t, w, seed, 3)
	r := readerOf(t, w.Target(), w)
	for round := range 8 {
		all, err := w.Snapshots()
		if err != nil {
			t.Fatal(err)
		}
		added := rng.IntN(3)
		var gone []index.Snapshot
		if round%2 == 1 && len(all) > 1 {
			gone = all[rng.IntN(len(all)-1):][:1] // not the newest: the next one would have to be full
		}
		for range added {
			for range 12 {
				h.vol.step()
			}
			h.seal(t, w, false)
		}
		if err := w.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		if len(gone) > 0 {
			prune(t, w)
		}
		u, err := r.Update(t.Context())
		if err != nil || len(u.Added) != added || len(u.Deleted) != len(gone) {
			t.Fatalf("%+v, %v; want %d more and %d less", u, err, added, len(gone))
		}
		h.check(t, r)
		sameCatalogue(t, r, w)
		onlyWhatIsThere(t, r)
		if u, err = r.Update(t.Context()); err != nil || len(u.Added)+len(u.Deleted)+u.Packs != 0 {
			t.Errorf("a second update: %+v, %v", u, err)
		}
	}
}

// TestUpdateMovedChunks: chunks of a pack that was rewritten are found when the old one goes, whichever of the two was met first.
func TestUpdateMovedChunks(t *testing.T) {
	for range 6 { // packs have random names
		w, c := newRepo(t), newLagging(t)
		late := readerOf(t, c, w)
		h := sparseHistory(t, w)
		c.sync(t, w)
		early := readerOf(t, c, w)
		if err := w.Delete(t.Context(), h.snaps[:1]); err != nil {
			t.Fatal(err)
		}
		if res := prune(t, w); res.RewrittenPacks != 1 {
			t.Fatalf("%+v", res)
		}
		c.sync(t, w)
		between := readerOf(t, c, w)
		for range 2 {
			for _, r := range []*Repo{late, early, between} {
				if _, err := r.Update(t.Context()); err != nil {
					t.Fatal(err)
				}
				h.check(t, r)
			}
			c.sync(t, w)
		}
		for _, r := range []*Repo{late, early, between} {
			onlyWhatIsThere(t, r)
		}
	}
}

// lagging is a copy of a store that keeps packs for a while that were removed, as a remote does.
type lagging struct {
	*target.Dir
	doomed []string
}

func newLagging(t *testing.T) *lagging {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	return &lagging{Dir: d}
}

// sync brings the copy up to date. Packs that w has removed go the second time.
func (l *lagging) sync(t *testing.T, w *Repo) {
	t.Helper()
	names := func(from target.Target) map[string]bool {
		list, err := from.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string]bool)
		for _, o := range list {
			all[o.Name] = true
		}
		return all
	}
	want, have := names(w.Target()), names(l)
	gone := l.doomed
	l.doomed = nil
	for name := range have {
		switch {
		case want[name]:
		case strings.HasPrefix(name, ManifestPrefix):
			gone = append(gone, name)
		case !slices.Contains(gone, name):
			l.doomed = append(l.doomed, name)
		}
	}
	for name := range want {
		if have[name] {
			continue
		}
		p, err := target.Get(t.Context(), w.Target(), name, 1<<30)
		if err == nil {
			err = target.Put(t.Context(), l, name, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Remove(t.Context(), gone...); err != nil {
		t.Fatal(err)
	}
}

// sameCatalogue compares what two repositories list, but for the numbers.
func sameCatalogue(t *testing.T, r, w *Repo) {
	t.Helper()
	ids := func(r *Repo) (out []string) {
		all, err := r.Snapshots()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			out = append(out, s.ID+" "+s.Name+" "+s.ManifestSHA256)
		}
		return out
	}
	if got, want := ids(r), ids(w); !slices.Equal(got, want) {
		t.Errorf("it lists %q, want %q", got, want)
	}
}

func onlyWhatIsThere(t *testing.T, r *Repo) {
	t.Helper()
	list, err := r.Store().Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[chunkstore.PackID]bool)
	for _, p := range list {
		there[p.ID] = true
	}
	known, err := r.Index().KnownPacks()
	if err != nil || len(known) != len(there) {
		t.Errorf("%d packs are known, %d there, %v", len(known), len(there), err)
	}
	err = r.Index().ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if !there[l.Pack] {
			t.Errorf("chunk %s is said to be in pack %s", id, l.Pack)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUpdateWhileReading: a snapshot that was deleted can be read on as long as its data is there, and fails clearly after that.
func TestUpdateWhileReading(t *testing.T) {
	w := newRepo(t)
	h := newHistory(t, w, rand.Uint64(), 8)
	r := readerOf(t, w.Target(), w)
	snap, err := r.Resolve(h.snaps[6].ID)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := r.Reader(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if err := w.Delete(t.Context(), h.snaps[6:7]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reader(t.Context(), snap); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("opening it anew: %v", err)
	}
	model := h.models[snap.ID]
	if err := readAll(t, rd, model); err != nil {
		t.Errorf("reading on: %v", err)
	}
	packs, err := r.Store().Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if err := w.Target().Remove(t.Context(), p.ID.Object()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	onlyWhatIsThere(t, r)
	r.chunks = newChunkCache(r.store, 1) // nothing is kept
	if err := readAll(t, rd, model); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading what is gone: %v", err)
	}
}

func readAll(t *testing.T, rd *Reader, model *fakeSource) error {
	t.Helper()
	for _, m := range model.inos {
		if err := compareInode(t.Context(), rd, m); err != nil {
			return err
		}
	}
	return nil
}
