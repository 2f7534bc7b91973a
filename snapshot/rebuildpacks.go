package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
)

// rebuildBatch is how many chunks' rows are collected before they are written; in ascending order they cost less.
const rebuildBatch = 1 << 16

// trailerReaders lists of packs are read at the same time, in groups of trailerGroup.
const (
	trailerReaders = 16
	trailerGroup   = 128
)

// rowBatch is rows of the index to be written. A chunk that comes from several packs has one row.
type rowBatch struct {
	rows []chunkstore.Located
	at   map[chunkstore.ID]int
}

// packs enters the chunks of all packs. Those that don't say what they hold come last: of them only what is nowhere else is needed.
func (b *rebuilder) packs(ctx context.Context) error {
	list, err := b.store.Packs(ctx)
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	var done, total int64
	for _, p := range list {
		total += p.Size
	}
	b.batch.at = make(map[chunkstore.ID]int)
	var damaged []chunkstore.PackID
	for group := range slices.Chunk(list, trailerGroup) {
		trailers, err := readTrailers(ctx, b.store, group)
		if err != nil {
			return err
		}
		for i, p := range group {
			whole, err := b.pack(ctx, p.ID, trailers[i])
			if err != nil {
				return err
			}
			if !whole && !b.opts.KeepStore {
				damaged = append(damaged, p.ID)
			}
			if done += p.Size; b.opts.Progress != nil {
				b.opts.Progress(done, total)
			}
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	for _, id := range damaged {
		if err := b.salvage(ctx, id); err != nil {
			return err
		}
	}
	return b.count()
}

// trailer is what a pack says that it has, or why it doesn't.
type trailer struct {
	rows []chunkstore.Located
	err  error
}

// readTrailers reads those of some packs at the same time: on a remote each takes some round trips. Its error is one that isn't a single pack's.
func readTrailers(ctx context.Context, store *chunkstore.Store, packs []chunkstore.PackInfo) ([]trailer, error) {
	out := make([]trailer, len(packs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(trailerReaders)
	for i, p := range packs {
		g.Go(func() error {
			rows, err := store.ReadTrailer(gctx, p.ID)
			if gctx.Err() != nil || chunkstore.Passing(err) || errors.Is(err, chunkstore.ErrNewerFormat) {
				return err
			}
			out[i] = trailer{rows, err}
			return nil
		})
	}
	return out, g.Wait()
}

// pack enters the chunks of a pack; false if it must be salvaged.
func (b *rebuilder) pack(ctx context.Context, id chunkstore.PackID, t trailer) (whole bool, err error) {
	rows := t.rows
	if t.err != nil {
		what := "its whole records are copied to another pack, and graphvol prune will remove it"
		if b.opts.KeepStore {
			what = "what is in it is lost here"
		}
		b.problem("", fmt.Errorf("%w; %s", t.err, what))
		return false, nil
	}
	if b.opts.ReadData {
		if rows, err = b.undamaged(ctx, id, rows); err != nil {
			return false, err
		}
	}
	for _, l := range rows {
		if err := b.add(ctx, l); err != nil {
			return false, err
		}
	}
	return true, nil
}

// undamaged reads the whole pack, and gives the rows of the chunks that can be read.
func (b *rebuilder) undamaged(ctx context.Context, id chunkstore.PackID, rows []chunkstore.Located) ([]chunkstore.Located, error) {
	err := b.store.VerifyPack(ctx, id)
	if err == nil || ctx.Err() != nil {
		return rows, ctx.Err()
	}
	bad, known := chunkstore.BadChunks(err)
	if !known {
		return nil, err
	}
	b.problem("", fmt.Errorf("pack %s: %d of its %d chunks are damaged and left out; a snapshot that has the same content stores them anew", id, len(bad), len(rows)))
	return slices.DeleteFunc(rows, func(l chunkstore.Located) bool { return slices.Contains(bad, l.ID) }), nil
}

// add enters the place of a chunk. If it has one already, that stays if the chunk can be read there: a chunk that was found damaged
// was stored a second time.
func (b *rebuilder) add(ctx context.Context, l chunkstore.Located) error {
	if i, ok := b.batch.at[l.ID]; ok {
		if _, err := b.store.GetAt(ctx, b.batch.rows[i], nil); err != nil {
			b.batch.rows[i] = l
		}
		return ctx.Err()
	}
	loc, ok, err := b.db.Locate(l.ID)
	if err != nil {
		return err
	}
	if ok {
		if _, err := b.store.GetAt(ctx, chunkstore.Located{ID: l.ID, Location: loc}, nil); err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	b.batch.at[l.ID] = len(b.batch.rows)
	if b.batch.rows = append(b.batch.rows, l); len(b.batch.rows) >= rebuildBatch {
		return b.flush()
	}
	return nil
}

func (b *rebuilder) flush() error {
	err := b.db.Relocate(b.batch.rows, nil)
	b.batch.rows = b.batch.rows[:0]
	clear(b.batch.at)
	return err
}

// salvage copies what a damaged pack has and no other.
func (b *rebuilder) salvage(ctx context.Context, id chunkstore.PackID) error {
	w := b.store.NewRepackWriter(ctx)
	defer w.Close()
	var failed error
	got, err := b.store.Salvage(ctx, id, func(chunk chunkstore.ID) bool {
		_, ok, err := b.db.Locate(chunk)
		failed = errors.Join(failed, err)
		return !ok
	}, w)
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	written, err := w.Finish()
	if err != nil {
		return err
	}
	if got.Lost > 0 {
		b.problem("", fmt.Errorf("pack %s: %d bytes of its records are damaged and lost", id, got.Lost))
	}
	return b.db.Relocate(written.Chunks, nil)
}

func (b *rebuilder) count() error {
	packs := make(map[chunkstore.PackID]bool)
	err := b.db.ForEachChunk(func(_ chunkstore.ID, l chunkstore.Location) error {
		packs[l.Pack] = true
		b.res.Chunks++
		return nil
	})
	b.res.Packs = int64(len(packs))
	return err
}
