package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
)

const (
	// Up to repackGroups groups of packs are copied at the same time, each to a pack of its own, so that what was sealed together stays
	// together. A group has up to maxGroup bytes, a pack's usual size, before the packs that they come from are removed: so much more
	// space is needed while pruning. Little is copied in groups of minGroup bytes, so that no small packs come of it.
	repackGroups = 4
	minGroup     = 8 << 20
	maxGroup     = 32 << 20
	// packOverhead and entryOverhead are what a pack and each of its chunks take beside the records.
	packOverhead  = 96
	entryOverhead = 40
)

// clean removes and rewrites packs.
func (p *pruner) clean(ctx context.Context, packs map[chunkstore.PackID]*packUse) error {
	empty, rewrite, err := p.choose(packs)
	if err != nil {
		return err
	}
	for _, id := range slices.Concat(empty, rewrite) {
		p.progress.TotalBytes += packs[id].size
	}
	if p.opts.DryRun {
		p.wouldClean(packs, empty, rewrite)
		return nil
	}
	// Removing first: it makes room for the copies.
	return errors.Join(p.removePacks(ctx, packs, empty), p.repackAll(ctx, packs, rewrite))
}

func (p *pruner) wouldClean(packs map[chunkstore.PackID]*packUse, empty, rewrite []chunkstore.PackID) {
	p.res.RemovedPacks, p.res.RewrittenPacks = int64(len(empty)), int64(len(rewrite))
	for _, id := range slices.Concat(empty, rewrite) {
		u := packs[id]
		p.res.gone(u)
		p.res.written(u.size - u.gain())
	}
}

// packUse is what the index knows to be in a pack.
type packUse struct {
	size   int64 // of the file
	chunks int64
	live   int64 // bytes of their records
	copied bool  // a remote has it
	away   bool  // only a remote has it: this state was attached to it
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
	if err := p.addCopied(packs); err != nil {
		return nil, err
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
		if err := p.repo.store.RemovePack(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		p.removed(u)
	}
	return errors.Join(errs...)
}

// repackAll rewrites packs, in groups. A damaged pack is left as it is, and told in the end.
func (p *pruner) repackAll(ctx context.Context, packs map[chunkstore.PackID]*packUse, ids []chunkstore.PackID) error {
	var total int64
	for _, id := range ids {
		total += packs[id].live
	}
	limit := min(max(total/repackGroups, p.group), maxGroup)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(repackGroups)
	var mu sync.Mutex
	var damage []error
	for len(ids) > 0 && gctx.Err() == nil {
		n, live := 1, packs[ids[0]].live
		for n < len(ids) && live+packs[ids[n]].live <= limit {
			live += packs[ids[n]].live
			n++
		}
		group := ids[:n]
		ids = ids[n:]
		g.Go(func() error {
			damaged, err := p.repack(gctx, packs, group)
			mu.Lock()
			defer mu.Unlock()
			damage = append(damage, damaged...)
			return err
		})
	}
	err := g.Wait()
	return errors.Join(append(damage, err)...)
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
			p.kept(packs[id])
			damage = append(damage, fmt.Errorf("%w; the pack stays as it is: run verify --read-data", err))
		case packs[id].away && chunkstore.Passing(err) && ctx.Err() == nil:
			p.kept(packs[id])
			p.repo.log.WarnContext(ctx, "a pack that only a copy has isn't rewritten, since the copy can't be read now; the next prune tries again", "error", err)
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
	p.rewrote(len(copied), written.StoredBytes)
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
