package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
)

// verifyWindow is how many chunks' places are held in memory: 60 bytes each.
const verifyWindow = 1 << 19

// packs checks the chunks that were marked, pack by pack in the order of the records, so that disks read ahead. The index
// is in the order of the chunks' ids; so it is read once for every verifyWindow chunks. A prune that runs
// meanwhile moves chunks to packs that weren't looked at yet: they are checked in another round.
func (v *verifier) packs(ctx context.Context) error {
	done := make(map[chunkstore.PackID]bool)
	for {
		rows, bytes, err := v.countRows(ctx, done)
		if err != nil || len(rows) == 0 {
			return err
		}
		v.mu.Lock()
		v.mu.progress.TotalBytes += bytes
		v.mu.Unlock()
		window, n := make(map[chunkstore.PackID]bool), 0
		for pack, count := range rows {
			if n > 0 && n+count > verifyWindow {
				if err := v.window(ctx, window); err != nil {
					return err
				}
				window, n = make(map[chunkstore.PackID]bool), 0
			}
			window[pack], done[pack] = true, true
			n += count
		}
		if err := v.window(ctx, window); err != nil {
			return err
		}
	}
}

// countRows counts the chunks to check by pack, without the packs that are done.
func (v *verifier) countRows(ctx context.Context, done map[chunkstore.PackID]bool) (rows map[chunkstore.PackID]int, bytes int64, err error) {
	rows = make(map[chunkstore.PackID]int)
	err = v.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if !done[l.Pack] && v.seen.has(id) {
			rows[l.Pack]++
			bytes += int64(l.Length)
		}
		return ctx.Err()
	})
	return rows, bytes, err
}

// window checks the marked chunks of some packs.
func (v *verifier) window(ctx context.Context, window map[chunkstore.PackID]bool) error {
	var rows []chunkstore.Located
	err := v.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if window[l.Pack] && v.seen.has(id) {
			rows = append(rows, chunkstore.Located{ID: id, Location: l})
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b chunkstore.Located) int {
		return cmp.Or(slices.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Offset, b.Offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.repo.cfg.Workers)
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Pack == rows[0].Pack {
			n++
		}
		pack := rows[:n:n]
		rows = rows[n:]
		g.Go(func() error { return v.pack(ctx, pack) })
	}
	return g.Wait()
}

// pack checks chunks that the index says are in one pack: that the pack's own list agrees, and with ReadData, or where the list
// leaves doubts, that they can be read.
func (v *verifier) pack(ctx context.Context, rows []chunkstore.Located) error {
	id := rows[0].Pack
	list, err := v.repo.store.ReadTrailer(ctx, id)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // what is missing shows in its chunks
		v.report(Problem{Err: fmt.Errorf("%w; the chunks in it that can't be read are reported too; graphvol rebuild copies what is whole to another pack", err)})
	}
	var buf []byte
	for i := range rows {
		l := &rows[i]
		for len(list) > 0 && list[0].Offset < l.Offset {
			list = list[1:]
		}
		listed := len(list) > 0 && list[0] == *l
		// Nodes were read by the walk.
		if !listed || v.opts.ReadData && !v.seen.isNode(l.ID) {
			if buf, err = v.read(ctx, l, buf); err != nil {
				return err
			}
		}
		v.step(int64(l.Length))
	}
	return nil
}

// read reads a chunk. The error is ctx's.
func (v *verifier) read(ctx context.Context, l *chunkstore.Located, buf []byte) ([]byte, error) {
	p, err := v.repo.store.GetAt(ctx, *l, buf)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = v.repo.store.Get(ctx, l.ID, buf) // a prune may have moved it
	}
	if err != nil {
		if ctx.Err() == nil {
			v.bad.add(l.ID, err)
		}
		return buf, ctx.Err()
	}
	v.bytes.Add(int64(len(p)))
	return p, nil
}
