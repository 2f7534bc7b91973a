package snapshot

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// RebuildOptions say what rebuilding an index does.
type RebuildOptions struct {
	// ReadData: every stored chunk is read. One that is damaged is left out of the index, so that the next full snapshot stores it anew.
	ReadData bool
	// KeepStore: nothing is written to the store, so packs that are damaged are left as they are.
	KeepStore bool
	// Volume is the volume's id, for a store that has no snapshot yet; empty: a new one is made.
	Volume string
	// Old is what can still be read of the old index.
	Old OldCatalogue
	// Progress gets the bytes of packs that were looked at, and of all; it may be nil.
	Progress func(done, total int64)
}

// Rebuilt is what Rebuild found.
type Rebuilt struct {
	Snapshots, Packs, Chunks int64
	// Deleted are ids of snapshots that others name as the one before and that aren't there: they are taken for deleted.
	Deleted []string
	// Aside are ids of manifests that are of no use; SetAside moves them out of the way.
	Aside    []string
	Problems []Problem
}

// rebuilder is one run of Rebuild.
type rebuilder struct {
	opts    RebuildOptions
	target  target.Local
	db      *index.DB
	store   *chunkstore.Store
	res     Rebuilt
	batch   rowBatch
	volumes map[string]int    // how many manifests have a volume's id
	parents map[string]string // SHA-256 of the manifest before, as a snapshot's own manifest has it
	before  map[string]string // the same, by the id of the snapshot before
}

// Rebuild makes an index at path from what is in the store: packs and manifests. cfg is as for Open. The index is durable when Rebuild
// returns, and its catalogue has all snapshots whose root can be read and of which a manifest or the old catalogue tells. The dirty map is
// gone, so whoever puts it in the old one's place must count everything as changed. Problems are told in the result; an error
// means that nothing can be made of the store. Packs that are damaged beside their records are copied, as far as they are whole;
// the next Prune removes them.
func Rebuild(ctx context.Context, cfg Config, path string, opts RebuildOptions) (res Rebuilt, err error) {
	if err := cfg.setDefaults(); err != nil {
		return res, err
	}
	b := &rebuilder{opts: opts, volumes: make(map[string]int), parents: make(map[string]string), before: make(map[string]string)}
	if b.target, err = openTarget(cfg); err != nil {
		return res, err
	}
	if b.db, err = index.Open(path, index.Options{Log: cfg.Log, Unsynced: true}); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, b.db.Close()) }()
	if b.store, err = chunkstore.Open(ctx, b.target, b.db, chunkstore.Options{Log: cfg.Log}); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	if err := b.run(ctx); err != nil {
		return b.res, fmt.Errorf("rebuild: %w", err)
	}
	return b.res, b.db.Sync()
}

func (b *rebuilder) run(ctx context.Context) error {
	all, err := b.snapshots(ctx)
	if err != nil {
		return err
	}
	if err := b.packs(ctx); err != nil {
		return err
	}
	if all, err = b.readable(ctx, all); err != nil {
		return err
	}
	return b.catalogue(inOrder(all))
}

func (b *rebuilder) problem(snapshot string, err error) {
	b.res.Problems = append(b.res.Problems, Problem{Snapshot: snapshot, Err: err})
}

// readable leaves out the snapshots whose root can't be read.
func (b *rebuilder) readable(ctx context.Context, all []index.Snapshot) ([]index.Snapshot, error) {
	out := all[:0]
	for _, s := range all {
		if s.State != index.StateComplete {
			out = append(out, s)
			continue
		}
		p, err := b.store.Get(ctx, s.Root, nil)
		if err == nil {
			_, err = tree.DecodeRoot(p)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if chunkstore.Passing(err) {
			return nil, err
		}
		if err != nil {
			b.setAside(s.ID, s.Name, fmt.Errorf("nothing of it can be read: %w", err))
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// catalogue enters the snapshots, oldest first, and the facts that belong to them.
func (b *rebuilder) catalogue(all []index.Snapshot) error {
	sums, list := make(map[string]string), deletions{Manifests: make(map[string]string)}
	for id, sum := range b.opts.Old.deleted.Manifests {
		list.Manifests[id] = sum
	}
	for i := range all {
		s := &all[i]
		if s.State != index.StateComplete {
			continue
		}
		b.res.Snapshots++
		sums[s.ID] = s.ManifestSHA256
		want, told := b.parents[s.ID]
		sum, here := sums[s.Parent]
		_, deleted := list.Manifests[s.Parent]
		switch {
		case !told || s.Parent == "" || deleted && !here:
		case !here:
			list.Manifests[s.Parent] = want
			b.res.Deleted = append(b.res.Deleted, s.Parent)
		case sum != want:
			b.problem(s.Name, fmt.Errorf("the manifest before, of snapshot %s, has the SHA-256 %s, not %s: %w", s.Parent, sum, want, errManifestDiffers))
		}
	}
	if err := b.db.Import(all); err != nil {
		return err
	}
	p, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return errors.Join(b.db.PutMeta(metaDeleted, p), b.db.PutMeta(metaVolume, []byte(b.volume())))
}

// volume gives the volume's id as the old index or most manifests have it, or else a new one.
func (b *rebuilder) volume() (id string) {
	if b.opts.Old.volume != "" {
		return b.opts.Old.volume
	}
	for v, n := range b.volumes {
		if v != "" && (n > b.volumes[id] || n == b.volumes[id] && v < id) {
			id = v
		}
	}
	if id == "" {
		id = cmp.Or(b.opts.Volume, newVolumeID())
	}
	return id
}

func newVolumeID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(id)
}

// SetAside moves manifests out of the way: what they say of their snapshots is of no use, but it isn't lost.
func SetAside(ctx context.Context, cfg Config, ids []string) error {
	t, err := openTarget(cfg)
	if err != nil {
		return err
	}
	for _, id := range ids {
		p, err := target.Get(ctx, t, ManifestObject(id), MaxManifest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // known from the old index alone
		}
		if err == nil {
			err = target.Put(ctx, t, "damaged/"+id+".json", p)
		}
		if err == nil {
			err = t.Remove(ctx, ManifestObject(id))
		}
		if err != nil {
			return fmt.Errorf("set the manifest of snapshot %s aside: %w", id, err)
		}
	}
	return nil
}
