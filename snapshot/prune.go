package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"graphvol/chunkstore"
)

// ErrPruning says that another prune is running.
var ErrPruning = errors.New("another prune is running; wait until it has ended")

// errUnknownManifest stops a prune that would remove the data of snapshots which the catalogue has lost.
var errUnknownManifest = errors.New("the catalogue doesn't know this manifest's snapshot, nor that it was deleted: perhaps the index is an older copy; pruning would remove the snapshot's data. If it isn't needed, remove the manifest")

const (
	// dropBatch is the number of chunks that are forgotten at a time; seals wait so long, a few tens of milliseconds.
	dropBatch = 4096
	// repackGain is the least number of bytes for which a pack is rewritten.
	repackGain = 64 << 10
	// repackGroup is about how many bytes are copied before the packs that they come from are removed: so much more
	// space is needed while pruning.
	repackGroup = 128 << 20
	// packOverhead and entryOverhead are what a pack and each of its chunks take beside the records.
	packOverhead  = 96
	entryOverhead = 40
)

// PruneOptions say what pruning does.
type PruneOptions struct {
	// DryRun finds out what would be removed, and removes nothing. Beside a running seal the answer is an estimate.
	DryRun bool
	// Progress may be nil. It is called from Prune's goroutine.
	Progress func(PruneProgress)
}

// PruneProgress is how many bytes of packs that are removed or rewritten are done. Both are 0 while marking.
type PruneProgress struct{ Bytes, TotalBytes int64 }

// PruneResult is what pruning did, or would do.
type PruneResult struct {
	RemovedChunks  int64 // forgotten by the index
	RemovedPacks   int64
	RewrittenPacks int64
	FreedBytes     int64 // of packs and manifests
	StoreBytes     int64 // of packs, afterwards
}

// Prune removes what no snapshot and no reader needs: chunks from the index, packs without any chunk that is needed, and manifests of
// deleted or failed snapshots. Packs of which less than half is needed are rewritten. Seals, restores and reads may run
// beside it; one Prune runs at a time (ErrPruning). After an error or a crash nothing that is needed is missing, and the
// next Prune goes on; the result then tells what was done. If a snapshot is damaged in such a way that it can't be known what it needs,
// nothing is removed.
//
// The order, beside what chunkstore demands:
//
//  1. All complete and pinned snapshots are marked.
//  2. Batch by batch, the index forgets chunks that aren't marked. Within chunkstore.Store.Exclusive: snapshots that became complete
//     since are marked first, and what a running seal has put or found is kept.
//  3. Packs in which the index knows no chunk now, and that no running seal writes, are forgotten, then removed.
//  4. Packs of which less than half is left are copied; the copies are durable before the index names them, and
//     the index has forgotten the old packs before they are removed.
func (r *Repo) Prune(ctx context.Context, opts PruneOptions) (PruneResult, error) {
	if !r.upkeep.pruning.TryLock() {
		return PruneResult{}, ErrPruning
	}
	defer r.upkeep.pruning.Unlock()
	p := &pruner{repo: r, opts: opts, marker: r.newMarker(), batch: dropBatch}
	err := p.run(ctx)
	if err != nil {
		err = fmt.Errorf("prune: %w", err)
	}
	return p.res, err
}

type pruner struct {
	repo     *Repo
	opts     PruneOptions
	marker   *marker
	batch    int                        // see dropBatch
	touched  map[chunkstore.PackID]bool // had chunks that were dropped
	progress PruneProgress
	res      PruneResult
}

func (p *pruner) run(ctx context.Context) error {
	strays, err := p.strays(ctx)
	if err != nil {
		return err
	}
	for more := true; more; { // again, for what became complete meanwhile
		if more, err = p.marker.needed(ctx); err != nil {
			return err
		}
	}
	if err := p.removeManifests(ctx, strays); err != nil {
		return err
	}
	if err := p.sweep(ctx); err != nil {
		return err
	}
	packs, err := p.usage(ctx)
	if err != nil {
		return err
	}
	return p.clean(ctx, packs)
}

// clean removes and rewrites packs.
func (p *pruner) clean(ctx context.Context, packs map[chunkstore.PackID]*packUse) error {
	var empty, sparse []chunkstore.PackID
	for id, u := range packs {
		switch {
		case u.chunks == 0:
			empty = append(empty, id)
		case u.gain() > u.size/2 && u.gain() >= repackGain:
			sparse = append(sparse, id)
		default:
			continue
		}
		p.progress.TotalBytes += u.size
	}
	if p.opts.DryRun {
		p.wouldClean(packs, empty, sparse)
		return nil
	}
	// Removing first: it makes room for the copies.
	return errors.Join(p.removePacks(ctx, packs, empty), p.repackAll(ctx, packs, sparse))
}

func (p *pruner) wouldClean(packs map[chunkstore.PackID]*packUse, empty, sparse []chunkstore.PackID) {
	p.res.RemovedPacks, p.res.RewrittenPacks = int64(len(empty)), int64(len(sparse))
	for _, id := range slices.Concat(empty, sparse) {
		p.freed(packs[id].gain())
	}
}

func (p *pruner) freed(n int64) {
	p.res.FreedBytes += n
	p.res.StoreBytes -= n
}

func (p *pruner) done(n int64) {
	p.progress.Bytes += n
	if p.opts.Progress != nil {
		p.opts.Progress(p.progress)
	}
}

// strays gives the manifests to remove.
func (p *pruner) strays(ctx context.Context) ([]strayManifest, error) {
	strays, err := p.repo.strayManifests(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range strays {
		if !s.expected {
			return nil, fmt.Errorf("%s: %w", manifestName(s.id), errUnknownManifest)
		}
	}
	return strays, nil
}

func (p *pruner) removeManifests(ctx context.Context, strays []strayManifest) error {
	for _, s := range strays {
		if !p.opts.DryRun {
			if err := p.repo.removeManifest(ctx, s.id); err != nil {
				return err
			}
		}
		p.res.FreedBytes += s.size
	}
	return nil
}

// sweep makes the index forget the chunks that nothing needs.
func (p *pruner) sweep(ctx context.Context) error {
	p.touched = make(map[chunkstore.PackID]bool)
	batch := make([]chunkstore.Located, 0, p.batch)
	err := p.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if p.marker.has(id) {
			return nil
		}
		if batch = append(batch, chunkstore.Located{ID: id, Location: l}); len(batch) < p.batch {
			return nil
		}
		err := p.drop(ctx, batch)
		batch = batch[:0]
		return err
	})
	if err == nil {
		err = p.drop(ctx, batch)
	}
	return err
}

func (p *pruner) drop(ctx context.Context, batch []chunkstore.Located) error {
	if err := ctx.Err(); err != nil || len(batch) == 0 {
		return err
	}
	return p.repo.store.Exclusive(func(protected func(chunkstore.ID) bool) error {
		if _, err := p.marker.needed(ctx); err != nil {
			return err
		}
		dead := make([]chunkstore.ID, 0, len(batch))
		for i := range batch {
			if id := batch[i].ID; !p.marker.has(id) && !protected(id) {
				dead = append(dead, id)
				p.touched[batch[i].Pack] = true
			}
		}
		if !p.opts.DryRun {
			if err := p.repo.db.Relocate(nil, nil, dead...); err != nil {
				return err
			}
		}
		p.res.RemovedChunks += int64(len(dead))
		return nil
	})
}

// packUse is what the index knows to be in a pack.
type packUse struct {
	size   int64 // of the file
	chunks int64
	live   int64 // bytes of their records
}

// gain is the number of bytes that rewriting saves.
func (u *packUse) gain() int64 {
	if u.chunks == 0 {
		return u.size
	}
	return u.size - (packOverhead + u.live + entryOverhead*u.chunks)
}

// usage gives the packs that no running seal writes, and what is left in them. The order of its steps is that of
// chunkstore.Store.InUse.
func (p *pruner) usage(ctx context.Context) (map[chunkstore.PackID]*packUse, error) {
	list, err := p.repo.store.Packs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	packs := make(map[chunkstore.PackID]*packUse, len(list))
	for id := range p.touched {
		packs[id] = &packUse{}
	}
	for _, info := range list {
		packs[info.ID] = &packUse{size: info.Size}
		p.res.StoreBytes += info.Size
	}
	for id := range packs {
		if p.repo.store.InUse(id) {
			delete(packs, id)
		}
	}
	err = p.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if u := packs[l.Pack]; u != nil && (!p.opts.DryRun || p.marker.has(id)) {
			u.chunks++
			u.live += int64(l.Length)
		}
		return ctx.Err()
	})
	return packs, err
}

// removePacks removes packs in which the index knows no chunk.
func (p *pruner) removePacks(ctx context.Context, packs map[chunkstore.PackID]*packUse, ids []chunkstore.PackID) error {
	if len(ids) == 0 {
		return nil
	}
	if err := p.repo.db.Relocate(nil, ids); err != nil {
		return err
	}
	return p.removeFiles(ctx, packs, ids)
}

// removeFiles removes the files of packs that the index doesn't know any more.
func (p *pruner) removeFiles(ctx context.Context, packs map[chunkstore.PackID]*packUse, ids []chunkstore.PackID) error {
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		u := packs[id]
		err := p.repo.store.RemovePack(ctx, id)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		if u.chunks == 0 && err == nil {
			p.res.RemovedPacks++
		}
		p.freed(u.size)
		p.done(u.size)
	}
	return errors.Join(errs...)
}

// repackAll rewrites packs, in groups. A damaged pack is left as it is, and told in the end.
func (p *pruner) repackAll(ctx context.Context, packs map[chunkstore.PackID]*packUse, ids []chunkstore.PackID) error {
	var damage []error
	for len(ids) > 0 {
		n, live := 0, int64(0)
		for n < len(ids) && live < repackGroup {
			live += packs[ids[n]].live
			n++
		}
		damaged, err := p.repack(ctx, packs, ids[:n])
		damage = append(damage, damaged...)
		if err != nil {
			return errors.Join(append(damage, err)...)
		}
		ids = ids[n:]
	}
	return errors.Join(damage...)
}

// repack copies what is left in packs, and removes those of which everything was copied.
func (p *pruner) repack(ctx context.Context, packs map[chunkstore.PackID]*packUse, ids []chunkstore.PackID) (damage []error, err error) {
	w := p.repo.store.NewRepackWriter(ctx)
	defer w.Close()
	var copied []chunkstore.PackID
	for _, id := range ids {
		err := p.copyPack(ctx, id, w)
		switch {
		case errors.Is(err, chunkstore.ErrCorrupt):
			damage = append(damage, fmt.Errorf("%w; the pack stays as it is: run verify --read-data", err))
		case err != nil:
			return damage, err
		default:
			copied = append(copied, id)
		}
	}
	written, err := w.Finish()
	if err != nil {
		return damage, err
	}
	if err := ctx.Err(); err != nil {
		w.Abort()
		return damage, err
	}
	// From here on the index may refer to the copies, even after an error: they stay.
	if err := p.repo.db.Relocate(written.Chunks, copied); err != nil {
		return damage, err
	}
	p.freed(-written.StoredBytes)
	p.res.RewrittenPacks += int64(len(copied))
	return damage, p.removeFiles(ctx, packs, copied)
}

// copyPack copies the chunks that the index knows in a pack.
func (p *pruner) copyPack(ctx context.Context, pack chunkstore.PackID, w *chunkstore.Writer) error {
	var locateErr error
	err := p.repo.store.Repack(ctx, pack, func(id chunkstore.ID) bool {
		l, ok, err := p.repo.db.Locate(id)
		if err != nil {
			locateErr = err
		}
		return ok && l.Pack == pack
	}, w)
	return errors.Join(err, locateErr)
}
