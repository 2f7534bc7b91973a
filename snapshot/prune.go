package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"graphvol/chunkstore"
)

// ErrPruning says that another prune is running.
var ErrPruning = errors.New("another prune is running; wait until it has ended")

// errUnknownManifest stops a prune that would remove the data of snapshots which the catalogue has lost.
var errUnknownManifest = errors.New("the catalogue doesn't know this manifest's snapshot, nor that it was deleted: perhaps the index is an older copy; pruning would remove the snapshot's data. Run graphvol rebuild; or if it isn't needed, remove the manifest")

// dropBatch is the number of chunks that are forgotten at a time; seals wait so long, a few tens of milliseconds.
const dropBatch = 4096

// PruneOptions say what pruning does.
type PruneOptions struct {
	// DryRun finds out what would be removed, and removes nothing. Beside a running seal the answer is an estimate.
	DryRun bool
	// MaxUnused is how many percent of the packs' bytes may be unused afterwards; nil: 5, of packs that no remote has. See pruner.choose.
	MaxUnused *int
	// Progress may be nil. It is called before Prune returns, and by one goroutine at a time.
	Progress func(PruneProgress)
}

// PruneProgress is how many bytes of packs that are removed or rewritten are done. Both are 0 while marking.
type PruneProgress struct{ Bytes, TotalBytes int64 }

// PruneResult is what pruning did, or would do.
type PruneResult struct {
	RemovedChunks  int64 // forgotten by the index
	RemovedPacks   int64
	RewrittenPacks int64
	FreedBytes     int64 // of packs, also those that only a remote has, and manifests
	StoreBytes     int64 // of packs that are here, afterwards
	UnusedBytes    int64 // of these: what nothing needs, in packs that weren't worth rewriting
}

// Prune removes what no snapshot and no reader needs: chunks from the index, packs without any chunk that is needed, and manifests of
// deleted or failed snapshots. Packs are rewritten where that frees enough (see pruner.choose), and small ones when there are many. Seals, restores and reads may run
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
//  4. Packs that are to be rewritten or merged are copied; the copies are durable before the index names them, and
//     the index has forgotten the old packs before they are removed.
func (r *Repo) Prune(ctx context.Context, opts PruneOptions) (PruneResult, error) {
	if !r.upkeep.pruning.TryLock() {
		return PruneResult{}, ErrPruning
	}
	defer r.upkeep.pruning.Unlock()
	p := &pruner{repo: r, opts: opts, marker: r.newMarker(), batch: dropBatch, group: minGroup}
	err := p.run(ctx)
	if err != nil {
		err = fmt.Errorf("prune: %w", err)
	}
	return p.res, err
}

type pruner struct {
	repo    *Repo
	opts    PruneOptions
	marker  *marker
	batch   int                        // see dropBatch
	group   int64                      // see minGroup
	touched map[chunkstore.PackID]bool // had chunks that were dropped

	mu       sync.Mutex // of what follows, while groups of packs are rewritten
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
	if err := p.clean(ctx, packs); err != nil || p.opts.DryRun {
		return err
	}
	if err := p.repo.prunePrints(ctx); err != nil {
		p.repo.log.WarnContext(ctx, "fingerprints that nothing needs may be left; they take space and are otherwise harmless", "error", err)
	}
	return ctx.Err()
}

// gone counts a pack that was removed, here or on its remotes.
func (r *PruneResult) gone(u *packUse) {
	r.FreedBytes += u.size
	if !u.away {
		r.StoreBytes -= u.size
	}
}

// written counts copies.
func (r *PruneResult) written(n int64) {
	r.FreedBytes -= n
	r.StoreBytes += n
}

// rewrote notes what was copied.
func (p *pruner) rewrote(packs int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.res.RewrittenPacks += int64(packs)
	p.res.written(bytes)
}

// kept notes that a pack stays as it is.
func (p *pruner) kept(u *packUse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !u.away {
		p.res.UnusedBytes += u.gain()
	}
}

// removed notes that a pack's file is gone.
func (p *pruner) removed(u *packUse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.chunks == 0 {
		p.res.RemovedPacks++
	}
	p.res.gone(u)
	p.progress.Bytes += u.size
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
			return nil, fmt.Errorf("%s: %w", ManifestObject(s.id), errUnknownManifest)
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
