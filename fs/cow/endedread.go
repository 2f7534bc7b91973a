package cow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"graphvol/fs/cow/epoch"
	"graphvol/snapshot"
)

// size is a file's size as of the barrier.
func (e *Ended) size(ctx context.Context, ino uint64) (int64, error) {
	e.places.Lock()
	n, ok := e.places.sizes[ino]
	e.places.Unlock()
	if ok {
		return n, nil
	}
	t, err := e.Inode(ctx, ino)
	if err != nil {
		return 0, err
	}
	e.places.Lock()
	defer e.places.Unlock()
	if e.places.sizes == nil {
		e.places.sizes = map[uint64]int64{}
	}
	e.places.sizes[ino] = t.Size
	return t.Size, nil
}

var scratch = sync.Pool{New: func() any { b := make([]byte, snapshot.SegmentSize); return &b }}

// ReadAt fills p with a file's bytes as of the barrier, zeros in holes and behind the end. off and len(p) are multiples of the
// block size. A block that this epoch didn't change and a later one did fails with ErrSuperseded.
func (e *Ended) ReadAt(ctx context.Context, ino uint64, p []byte, off int64) error {
	if off%blockSize != 0 || len(p)%blockSize != 0 {
		return fmt.Errorf("read of %d bytes at %d: not whole blocks", len(p), off)
	}
	size, err := e.size(ctx, ino)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), snapshot.SegmentSize)
		if err := e.readBlocks(ctx, ino, p[:n], off, size); err != nil {
			return fmt.Errorf("inode %d at %d: %w", ino, off, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (e *Ended) readBlocks(ctx context.Context, ino uint64, p []byte, off, size int64) error {
	inside := min(int64(len(p)), max(0, size-off)) // a file may end at the last offset there is
	inside = (inside + blockSize - 1) / blockSize * blockSize
	clear(p[inside:])
	p = p[:inside]
	if len(p) == 0 {
		return e.Err()
	}
	first := uint64(off) / blockSize
	have := make([]bool, len(p)/blockSize)
	gone, err := e.v.images.readBlocks(e.number, ino, first, p, have)
	if err != nil {
		return err
	}
	if slices.Contains(have, false) {
		if err := e.readRest(ctx, ino, p, off, have, gone); err != nil {
			return err
		}
	}
	if tail := size - off; tail < int64(len(p)) {
		clear(p[tail:])
	}
	return e.Err()
}

// readRest fills the blocks that have no preimage from the live file, and looks for preimages again: whoever changes a needed
// block saves it first, so what has none after the read was read unchanged.
func (e *Ended) readRest(ctx context.Context, ino uint64, p []byte, off int64, have []bool, gone goneKind) error {
	bp := scratch.Get().(*[]byte)
	defer scratch.Put(bp)
	live := (*bp)[:len(p)]
	var liveErr error
	if gone.saved() {
		clear(live)
	} else {
		liveErr = e.readLive(ctx, ino, live, off)
	}
	was := slices.Clone(have)
	gone, err := e.v.images.readBlocks(e.number, ino, uint64(off)/blockSize, p, have)
	if err != nil {
		return err
	}
	var rest []uint64
	for i := range have {
		if was[i] || have[i] {
			continue
		}
		blk := p[i*blockSize : (i+1)*blockSize]
		if gone.saved() {
			clear(blk) // everything that was needed and no hole is saved
			continue
		}
		if liveErr != nil {
			return liveErr
		}
		copy(blk, live[i*blockSize:])
		rest = append(rest, uint64(off)/blockSize+uint64(i))
	}
	return e.notSuperseded(ino, rest)
}

func (e *Ended) readLive(ctx context.Context, ino uint64, p []byte, off int64) error {
	v := e.v
	if f := v.heldFile(ino); f != nil {
		if err := readFull(f.ReadAt, p, off); err == nil {
			return nil
		}
	}
	err := e.located(ctx, ino, func() error {
		return readFull(func(p []byte, off int64) (int, error) { return v.tree.ReadAt(ino, p, off) }, p, off)
	})
	if f := v.heldFile(ino); f != nil && errors.Is(notExist(err), fs.ErrNotExist) {
		return readFull(f.ReadAt, p, off)
	}
	return err
}

// notSuperseded refuses blocks that were read live, aren't this epoch's and were changed later: they were never needed, so
// nobody saved them.
func (e *Ended) notSuperseded(ino uint64, blocks []uint64) error {
	if e.Full() || len(blocks) == 0 {
		return nil
	}
	mine := e.marksOf(ino)
	later := e.laterEpochs()
	for _, b := range blocks {
		if slices.ContainsFunc(mine, func(in *epoch.Inode) bool { return in.Dirty(b, 1) }) {
			continue
		}
		for _, ep := range later {
			if in := ep.Find(ino); in != nil && in.Dirty(b, 1) {
				return ErrSuperseded
			}
		}
	}
	return nil
}

// marksOf lists what e's epochs say of an inode.
func (e *Ended) marksOf(ino uint64) (ins []*epoch.Inode) {
	for _, p := range *e.parts.Load() {
		if in := p.ep.Find(ino); marked(in) {
			ins = append(ins, in)
		}
	}
	return ins
}

// Dirty gives the changed inodes in ascending order.
func (e *Ended) Dirty(yield func(snapshot.DirtyInode) bool) {
	var eps []*epoch.Epoch
	for _, p := range *e.parts.Load() {
		eps = append(eps, p.ep)
	}
	for ins := range dirtyInodes(eps) {
		d := snapshot.DirtyInode{Ino: ins[0].Ino()}
		blocks := false
		for _, in := range ins {
			d.Content = d.Content || in.HasContent()
			d.Fresh = d.Fresh || in.HasFresh()
			d.AllNames = d.AllNames || in.HasAllNames() || in.HasFresh()
			d.Names = append(d.Names, in.Names()...)
			blocks = blocks || in.Count() > 0
		}
		slices.Sort(d.Names)
		d.Names = slices.Compact(d.Names)
		if blocks {
			d.Runs = runsOf(ins)
		}
		if !yield(d) {
			return
		}
	}
}

// dirtyInodes gives what epochs say of each changed inode, ascending by inode number, and by epoch within one.
func dirtyInodes(eps []*epoch.Epoch) func(yield func([]*epoch.Inode) bool) {
	return func(yield func([]*epoch.Inode) bool) {
		var all []*epoch.Inode
		for _, ep := range eps {
			for in := range ep.All {
				if marked(in) {
					all = append(all, in)
				}
			}
		}
		if len(eps) > 1 {
			slices.SortStableFunc(all, func(a, b *epoch.Inode) int {
				switch {
				case a.Ino() < b.Ino():
					return -1
				case a.Ino() > b.Ino():
					return 1
				}
				return 0
			})
		}
		for i := 0; i < len(all); {
			j := i + 1
			for j < len(all) && all[j].Ino() == all[i].Ino() {
				j++
			}
			if !yield(all[i:j]) {
				return
			}
			i = j
		}
	}
}

// runsOf gives the union of the dirty blocks as ascending runs.
func runsOf(ins []*epoch.Inode) func(yield func(first, n uint64) bool) {
	if len(ins) == 1 {
		return ins[0].DirtyRuns
	}
	return func(yield func(first, n uint64) bool) {
		type run struct{ first, end uint64 }
		var rs []run
		for _, in := range ins {
			for first, n := range in.DirtyRuns {
				rs = append(rs, run{first, first + n})
			}
		}
		slices.SortFunc(rs, func(a, b run) int {
			if a.first < b.first {
				return -1
			}
			return 1
		})
		for i := 0; i < len(rs); {
			r := rs[i]
			for i++; i < len(rs) && rs[i].first <= r.end; i++ {
				r.end = max(r.end, rs[i].end)
			}
			if !yield(r.first, r.end-r.first) {
				return
			}
		}
	}
}
