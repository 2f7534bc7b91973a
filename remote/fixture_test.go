package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// fixture is a volume's store, whose snapshots are lists of chunks.
type fixture struct {
	t     *testing.T
	db    *index.DB
	dir   *target.Dir
	store *chunkstore.Store
	keys  string // directory of key files
	n     uint64
	chunk int                        // bytes
	want  map[string][]chunkstore.ID // by snapshot
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOf(t, 20_000, 64<<10)
}

func newFixtureOf(t *testing.T, chunk int, pack int64) *fixture {
	t.Helper()
	state := t.TempDir()
	f := &fixture{t: t, chunk: chunk, keys: filepath.Join(state, "keys"), want: map[string][]chunkstore.ID{}}
	var err error
	if f.db, err = index.Open(filepath.Join(state, "index.db"), index.Options{}); err != nil {
		t.Fatal(err)
	}
	if f.dir, err = target.OpenDir(filepath.Join(state, "store")); err != nil {
		t.Fatal(err)
	}
	if f.store, err = chunkstore.Open(t.Context(), f.dir, f.db, chunkstore.Options{PackSize: pack, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.db.Check(context.Background()), f.store.Close(), f.db.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// snapshot stores a snapshot of new chunks and of some of the one before.
func (f *fixture) snapshot() index.Snapshot {
	f.t.Helper()
	f.n++
	s := index.Snapshot{Name: fmt.Sprint("s", f.n), Kind: index.KindFull, Epoch: f.n}
	f.must(f.db.AddPending(&s))
	w := f.store.NewWriter(f.t.Context())
	defer w.Close()
	var ids []chunkstore.ID
	for i := range 12 {
		p := make([]byte, f.chunk)
		rng := rand.New(rand.NewPCG(f.n, uint64(i)))
		for at := 0; at < len(p); at += 8 {
			binary.LittleEndian.PutUint64(p[at:], rng.Uint64())
		}
		id, err := w.Put(p)
		f.must(err)
		ids = append(ids, id)
	}
	s.Root = ids[0]
	for _, old := range f.want {
		ids = append(ids, old[:3]...)
	}
	written, err := w.Finish()
	f.must(err)
	manifest := []byte("manifest of " + s.ID)
	f.must(target.Put(f.t.Context(), f.dir, snapshot.ManifestObject(s.ID), manifest))
	s.ManifestSHA256 = hashHex(manifest)
	f.must(f.db.Complete(index.Commit{Snapshot: s, Chunks: written.Chunks}))
	f.want[s.ID] = ids
	return s
}

// remove deletes a snapshot.
func (f *fixture) remove(s index.Snapshot) {
	f.t.Helper()
	f.must(f.db.Remove(s.ID))
	f.must(f.dir.Remove(f.t.Context(), snapshot.ManifestObject(s.ID)))
	delete(f.want, s.ID)
}

// prune copies all chunks that a snapshot needs to new packs, and removes the old ones.
func (f *fixture) prune() {
	f.t.Helper()
	needed := map[chunkstore.ID]bool{}
	for _, ids := range f.want {
		for _, id := range ids {
			needed[id] = true
		}
	}
	packs, err := f.db.PackIDs()
	f.must(err)
	w := f.store.NewRepackWriter(f.t.Context())
	defer w.Close()
	var dead []chunkstore.ID
	f.must(f.db.ForEachChunk(func(id chunkstore.ID, _ chunkstore.Location) error {
		if !needed[id] {
			dead = append(dead, id)
		}
		return nil
	}))
	for id := range needed {
		p, err := f.store.Get(f.t.Context(), id, nil)
		f.must(err)
		_, err = w.Put(p)
		f.must(err)
	}
	written, err := w.Finish()
	f.must(err)
	f.must(f.db.Relocate(nil, nil, dead...))
	f.must(f.db.Relocate(written.Chunks, packs))
	for _, id := range packs {
		f.must(f.store.RemovePack(f.t.Context(), id))
	}
}

func (f *fixture) config(t target.Target) Config {
	return Config{
		Name: "r1", Spec: Spec{URLs: []string{t.String()}}, Parallel: 2,
		Opener: &Opener{Dial: func(context.Context, string) (target.Target, error) { return t, nil }, Keys: f.keys},
		Local:  Local{Index: f.db, Target: f.dir, Volume: "v", Verify: f.store.VerifyPack, VerifyObject: f.store.VerifyObject, Needs: f.needs},
	}
}

// needs reports the snapshots that have chunks in lost packs.
func (f *fixture) needs(_ context.Context, lost map[chunkstore.PackID]error, report func(snapshot.Problem)) error {
	for id, chunks := range f.want {
		for _, c := range chunks {
			l, _, err := f.db.Locate(c)
			if err != nil {
				return err
			}
			if damage := lost[l.Pack]; damage != nil {
				report(snapshot.Problem{Snapshot: id, Err: damage})
				break
			}
		}
	}
	return nil
}

// copyDir makes a directory for a remote.
func copyDir(t *testing.T) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// located finds chunks by the lists of all packs on a target.
type located map[chunkstore.ID]chunkstore.Location

func (l located) Locate(id chunkstore.ID) (chunkstore.Location, bool, error) {
	loc, ok := l[id]
	return loc, ok, nil
}

// check demands that the newest head lists whole snapshots, and gives their ids.
func (f *fixture) check(copied *target.Dir) (ids []string) {
	f.t.Helper()
	r := New(f.config(copied))
	r.target = copied
	_, h, err := r.newestHead(f.t.Context())
	f.must(err)
	loc := located{}
	store, err := chunkstore.Open(f.t.Context(), copied, loc, chunkstore.Options{})
	f.must(err)
	defer store.Close()
	packs, err := store.Packs(f.t.Context())
	f.must(err)
	for _, p := range packs {
		list, err := store.ReadTrailer(f.t.Context(), p.ID)
		f.must(err)
		for _, c := range list {
			loc[c.ID] = c.Location
		}
	}
	for _, s := range h.Snapshots {
		ids = append(ids, s.ID)
		p, err := target.Get(f.t.Context(), copied, snapshot.ManifestObject(s.ID), 1<<20)
		if err != nil || hashHex(p) != s.Manifest {
			f.t.Errorf("the manifest of %s, which the head lists: %v", s.ID, err)
		}
		for _, id := range f.want[s.ID] {
			if _, err := store.Get(f.t.Context(), id, nil); err != nil {
				f.t.Errorf("snapshot %s, which the head lists: %v", s.ID, err)
			}
		}
	}
	return ids
}

// complete lists the ids of the snapshots, oldest first.
func (f *fixture) complete() (ids []string) {
	f.t.Helper()
	all, err := f.db.Snapshots()
	f.must(err)
	for _, s := range all {
		if s.State == index.StateComplete {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// same demands that the remote has exactly the snapshots, and nothing that they don't need.
func (f *fixture) same(copied *target.Dir) {
	f.t.Helper()
	if got, want := f.check(copied), f.complete(); !slices.Equal(got, want) {
		f.t.Errorf("the head lists %v, want %v", got, want)
	}
	for _, prefix := range []string{"packs/", "manifests/"} {
		here, err := f.dir.List(f.t.Context(), prefix)
		f.must(err)
		there, err := copied.List(f.t.Context(), prefix)
		f.must(err)
		if !slices.Equal(here, there) {
			f.t.Errorf("%s: the copy has %v, want %v", prefix, there, here)
		}
	}
}

// flip damages an object of the local store.
func (f *fixture) flip(name string) {
	f.t.Helper()
	path := filepath.Join(f.dir.String(), name)
	p, err := os.ReadFile(path)
	f.must(err)
	p[len(p)/2] ^= 1
	f.must(os.WriteFile(path, p, 0o600))
}
