package snapshot

import (
	"errors"
	"fmt"
	"io"
	"math/bits"

	"graphvol/snapshot/tree"
)

// batchSegments is the number of adjacent segments that are read at once where all of them is read: 512 KiB.
const batchSegments = 4

// maxEdits is the number of changed segments of a file that are collected; a file with more is merged as a stream.
const maxEdits = 32 << 10

func blocksOf(size int64) uint64 { return (uint64(size) + BlockSize - 1) / BlockSize }

// fileSeal is the sealing of one file's content.
type fileSeal struct {
	s      *sealer
	in     *tree.Inode
	old    *tree.Inode // its content is the zero Ref if nothing of it counts
	blocks uint64      // in the new file
	data   dataWindow
	prints *filePrints
	window []*segmentJob // handed out, in the file's order; those before are collected
	sink   segmentSink
}

// segmentSink takes changed segments, ascending.
type segmentSink interface {
	put(seg uint64, record []byte) error
}

// file seals a regular file's content: sets in.Content and in.Blocks.
func (s *sealer) file(d *DirtyInode, in, old *tree.Inode, fresh bool) error {
	all, oldBlocks := fresh || d.Content, blocksOf(old.Size)
	if !all && d.Runs == nil && in.Size == old.Size {
		in.Content, in.Blocks = old.Content, old.Blocks
		return nil
	}
	if all {
		old = &tree.Inode{Ino: in.Ino, Gen: in.Gen}
	}
	f := &fileSeal{s: s, in: in, old: old, blocks: blocksOf(in.Size)}
	f.data = dataWindow{f: f}
	f.prints = s.prints.newFilePrints(in.Ino, f.blocks, oldBlocks, all)
	defer f.prints.close()
	if all {
		return f.everything()
	}
	return f.changes(d)
}

// everything seals all data of a file.
func (f *fileSeal) everything() error {
	if f.in.Size >= largeFile {
		select {
		case f.s.large <- struct{}{}:
			defer func() { <-f.s.large }()
		case <-f.s.ctx.Done():
			return f.s.ctx.Err()
		}
	}
	b := f.s.repo.nodes.NewBuilder(f.s.ctx, f.s.w.Raw())
	f.sink = builderSink{b}
	for seg, mask := range f.data.segments() {
		f.s.dirtyBytes.Add(int64(bits.OnesCount32(mask)) * BlockSize)
		if err := f.hand(&segmentJob{seg: seg, whole: true, data: mask, valid: f.valid(seg)}); err != nil {
			return err
		}
	}
	if err := errors.Join(f.data.err, f.drain()); err != nil {
		return err
	}
	var err error
	f.in.Content, err = b.Finish()
	return err
}

// valid is the mask of a segment's blocks that are not beyond the end of the file.
func (f *fileSeal) valid(seg uint64) uint32 {
	first := seg * SegmentBlocks
	if first >= f.blocks {
		return 0
	}
	return tree.BlockMask(0, min(f.blocks-first, SegmentBlocks))
}

// changes seals the dirty blocks of a file, and what a change of its size makes of the others.
func (f *fileSeal) changes(d *DirtyInode) error {
	f.in.Blocks = f.old.Blocks
	cut := (f.blocks + SegmentBlocks - 1) / SegmentBlocks // segments from here on are beyond the end
	if f.in.Size < f.old.Size {
		if err := f.uncount(cut); err != nil {
			return err
		}
	}
	sink := newEditSink(f, cut)
	f.sink = sink
	for seg, mask := range f.dirtySegments(d) {
		if err := f.change(seg, mask); err != nil {
			return err
		}
	}
	if err := f.drain(); err != nil {
		return err
	}
	var err error
	f.in.Content, err = sink.finish()
	return err
}

// uncount takes the data of segments beyond the end out of the file's block count.
func (f *fileSeal) uncount(cut uint64) error {
	if cut == 0 {
		f.in.Blocks = 0
		return nil
	}
	return f.s.repo.nodes.Ascend(f.s.ctx, f.old.Content, cut, func(e tree.Entry) error {
		seg, err := tree.DecodeSegment(e.Value)
		f.in.Blocks -= uint64(bits.OnesCount32(seg.Mask()))
		return err
	})
}

// dirtySegments gives the segments with dirty blocks and their masks, ascending, and the segment with the new end of
// a file that became shorter: its last block has zeros after the end now.
func (f *fileSeal) dirtySegments(d *DirtyInode) func(yield func(seg uint64, mask uint32) bool) {
	end := f.blocks // a block that is dirty whatever the marks say; f.blocks if there is none
	if f.in.Size < f.old.Size && f.blocks > 0 {
		end = f.blocks - 1
	}
	return func(yield func(uint64, uint32) bool) {
		m := maskRuns{yield: yield}
		if d.Runs != nil {
			d.Runs(func(first, n uint64) bool {
				n = min(n, f.blocks-min(first, f.blocks))
				f.s.dirtyBytes.Add(int64(n) * BlockSize)
				if end < min(first, f.blocks) {
					if !m.add(end, 1) {
						return false
					}
					end = f.blocks
				}
				return m.add(first, n)
			})
		}
		if !m.stopped && m.add(end, min(1, f.blocks-end)) {
			m.flush()
		}
	}
}

// maskRuns turns ascending runs of blocks into masks of segments.
type maskRuns struct {
	seg     uint64
	mask    uint32
	stopped bool
	yield   func(seg uint64, mask uint32) bool
}

func (m *maskRuns) add(first, n uint64) bool {
	for n > 0 {
		seg, at := first/SegmentBlocks, first%SegmentBlocks
		k := min(n, SegmentBlocks-at)
		if seg != m.seg && !m.flush() {
			return false
		}
		m.seg = seg
		m.mask |= tree.BlockMask(at, k)
		first, n = first+k, n-k
	}
	return true
}

func (m *maskRuns) flush() bool {
	if m.mask == 0 {
		return true
	}
	mask := m.mask
	m.mask = 0
	m.stopped = !m.yield(m.seg, mask)
	return !m.stopped
}

// change hands out a segment of which the blocks in dirty may have changed.
func (f *fileSeal) change(seg uint64, dirty uint32) error {
	old, _, err := f.s.repo.nodes.Get(f.s.ctx, f.old.Content, seg, "")
	if err != nil {
		return err
	}
	data, err := f.data.mask(seg, dirty)
	if err != nil {
		return err
	}
	if old == nil && data == 0 {
		return nil // a hole that stays one
	}
	return f.hand(&segmentJob{seg: seg, old: old, data: data, holes: dirty &^ data, valid: f.valid(seg)})
}

// hand gives a job to the pool, after the results of the oldest ones were taken if many are out. Jobs that read all of
// adjacent segments are joined.
func (f *fileSeal) hand(j *segmentJob) error {
	if k := len(f.window); k > 0 && f.window[k-1].joins(j) {
		f.window[k-1].more++
		return nil
	}
	if err := f.send(); err != nil {
		return err
	}
	j.f, j.done = f, make(chan struct{})
	f.window = append(f.window, j)
	return nil
}

// send gives the last job of the window to the pool: it was held back because the next segment might join it.
func (f *fileSeal) send() error {
	k := len(f.window)
	if k == 0 || f.window[k-1].sent {
		return nil
	}
	j := f.window[k-1]
	j.sent = true
	for i := range 1 + j.more {
		j.prints = append(j.prints, f.prints.segment(j.seg+uint64(i)))
	}
	select {
	case f.s.jobs <- j:
	case <-f.s.ctx.Done():
		return f.s.ctx.Err()
	}
	if k < 2*f.s.repo.cfg.Workers {
		return nil
	}
	return f.collect()
}

// collect takes the results of the oldest job.
func (f *fileSeal) collect() error {
	j := f.window[0]
	select {
	case <-j.done:
	case <-f.s.ctx.Done():
		return f.s.ctx.Err()
	}
	f.window = f.window[1:]
	if j.err != nil {
		return fmt.Errorf("block %d: %w", j.seg*SegmentBlocks, j.err)
	}
	for i, r := range j.results {
		f.prints.passed(j.seg + uint64(i))
		if r.same {
			continue
		}
		f.in.Blocks += uint64(int64(r.blocks))
		if err := f.sink.put(j.seg+uint64(i), r.record); err != nil {
			return err
		}
	}
	return nil
}

// drain waits for all jobs.
func (f *fileSeal) drain() error {
	if err := f.send(); err != nil {
		return err
	}
	for len(f.window) > 0 {
		if err := f.collect(); err != nil {
			return err
		}
	}
	f.prints.finish()
	return nil
}

// dataWindow knows where data is, from the answers of Source.NextData so far.
type dataWindow struct {
	f          *fileSeal
	from       uint64 // blocks [from, start) are holes, [start, end) are data
	start, end uint64
	err        error
}

// next moves the window to block b.
func (w *dataWindow) next(b uint64) error {
	start, end, err := w.f.s.src.NextData(w.f.s.ctx, w.f.in.Ino, int64(b)*BlockSize)
	if errors.Is(err, io.EOF) {
		w.from, w.start, w.end = b, ^uint64(0), ^uint64(0)
		return nil
	}
	if err != nil {
		return fmt.Errorf("find data: %w", err)
	}
	w.from, w.start, w.end = b, max(b, uint64(start)/BlockSize), blocksOf(end)
	if w.end <= w.start {
		return fmt.Errorf("find data from byte %d: empty range %d to %d", b*BlockSize, start, end)
	}
	return nil
}

// mask gives those of a segment's blocks in want that are data.
func (w *dataWindow) mask(seg uint64, want uint32) (data uint32, err error) {
	for want != 0 {
		b := seg*SegmentBlocks + uint64(bits.TrailingZeros32(want))
		if b < w.from || b >= w.end {
			if err := w.next(b); err != nil {
				return 0, err
			}
		}
		if b >= w.start {
			data |= want & -want
		}
		want &= want - 1
	}
	return data, nil
}

// segments gives all segments with data and their masks, ascending. After an error, which is in err, it ends.
func (w *dataWindow) segments() func(yield func(seg uint64, mask uint32) bool) {
	return func(yield func(uint64, uint32) bool) {
		m := maskRuns{yield: yield}
		for b := uint64(0); b < w.f.blocks; b = w.end {
			if w.err = w.next(b); w.err != nil || w.start >= w.f.blocks {
				break
			}
			if !m.add(w.start, min(w.end, w.f.blocks)-w.start) {
				return
			}
		}
		if w.err == nil {
			m.flush()
		}
	}
}
