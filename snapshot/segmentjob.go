package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"sync"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

const allBlocks = 1<<SegmentBlocks - 1

// segmentJob is work of the pool: a segment that may have changed, or adjacent ones of which everything is stored.
type segmentJob struct {
	f      *fileSeal
	seg    uint64
	whole  bool           // nothing of the parent's counts
	more   int            // segments after seg that are part of the job; all of them are nothing but data
	old    []byte         // the parent's record; nil if there is none
	data   uint32         // blocks to read: all data if whole, else the dirty ones that are data
	holes  uint32         // dirty blocks that are holes now
	valid  uint32         // blocks that are not beyond the end of the file
	sent   bool           // the pool has it
	prints []fingerprints // one for each segment; nil where the file has none

	done    chan struct{} // closed when what follows is set
	err     error
	results []segmentResult
}

// segmentResult is what has become of one segment.
type segmentResult struct {
	same   bool   // the parent's record stays
	record []byte // nil: no data
	blocks int    // data blocks more than before
}

// joins tells whether next can be part of j.
func (j *segmentJob) joins(next *segmentJob) bool {
	return !j.sent && j.whole && next.whole && j.data == allBlocks && next.data == allBlocks &&
		next.seg == j.seg+uint64(j.more)+1 && j.more+1 < batchSegments
}

var segmentBuffers = sync.Pool{New: func() any { b := make([]byte, batchSegments*SegmentSize); return &b }}

// segmentWorker does jobs until there are no more.
func (s *sealer) segmentWorker() {
	table := crc32.MakeTable(crc32.Castagnoli)
	for j := range s.jobs {
		bp := segmentBuffers.Get().(*[]byte)
		w := segmentWork{segmentJob: j, s: s, table: table, buf: *bp}
		if j.whole {
			j.err = w.storeWhole()
		} else {
			j.err = w.storeChanges()
		}
		segmentBuffers.Put(bp)
		close(j.done)
	}
}

// segmentWork is a job in the hands of a worker.
type segmentWork struct {
	*segmentJob
	s     *sealer
	table *crc32.Table
	buf   []byte
}

func block(p []byte, b int) []byte { return p[b*BlockSize : (b+1)*BlockSize] }

// storeWhole stores all data of the job's segments.
func (w *segmentWork) storeWhole() error {
	n := 1 + w.more
	if n > 1 {
		if err := w.readRange(w.buf[:n*SegmentSize], w.seg*SegmentBlocks); err != nil {
			return err
		}
	} else if err := w.readMask(w.buf, w.data); err != nil {
		return err
	}
	for i := range n {
		p := w.buf[i*SegmentSize : (i+1)*SegmentSize]
		w.print(i, p, w.data)
		rec, err := w.storeBlocks(p, w.data)
		if err != nil {
			return err
		}
		w.results = append(w.results, segmentResult{record: rec.Encode(), blocks: bits.OnesCount32(w.data)})
	}
	return nil
}

// readMask reads those blocks of the segment that are in mask to their places in p.
func (w *segmentWork) readMask(p []byte, mask uint32) error {
	for first, n := range maskSpans(mask) {
		if err := w.readRange(p[first*BlockSize:(first+n)*BlockSize], w.seg*SegmentBlocks+uint64(first)); err != nil {
			return err
		}
	}
	return nil
}

func (w *segmentWork) readRange(p []byte, first uint64) error {
	w.s.read.Add(int64(len(p)))
	if err := w.s.src.ReadAt(w.s.ctx, w.f.in.Ino, p, int64(first)*BlockSize); err != nil {
		return fmt.Errorf("read %d bytes: %w", len(p), err)
	}
	return nil
}

// maskSpans gives the runs of set bits.
func maskSpans(mask uint32) func(yield func(first, n int) bool) {
	return func(yield func(int, int) bool) {
		for mask != 0 {
			first := bits.TrailingZeros32(mask)
			n := bits.TrailingZeros32(^(mask >> first))
			if !yield(first, n) {
				return
			}
			mask &^= tree.BlockMask(first, n)
		}
	}
}

// maskBlocks gives the set bits.
func maskBlocks(mask uint32) func(yield func(b int) bool) {
	return func(yield func(int) bool) {
		for ; mask != 0; mask &= mask - 1 {
			if !yield(bits.TrailingZeros32(mask)) {
				return
			}
		}
	}
}

// print records the fingerprints of a segment's blocks that are in mask.
func (w *segmentWork) print(i int, p []byte, mask uint32) {
	sums := w.prints[i]
	if sums == nil {
		return
	}
	for b := range maskBlocks(mask) {
		sums.set(b, fingerprint(w.table, block(p, b)))
	}
}

// storeBlocks stores the blocks of p that are in mask as one chunk, and gives the segment that has nothing else.
func (w *segmentWork) storeBlocks(p []byte, mask uint32) (tree.Segment, error) {
	var seg tree.Segment
	if mask == 0 {
		return seg, nil
	}
	id, err := w.put(p, mask)
	if err != nil {
		return seg, err
	}
	at := 0
	for first, n := range maskSpans(mask) {
		seg.Append(tree.Extent{First: uint8(first), Blocks: uint8(n), ChunkFirst: uint8(at), Chunk: id})
		at += n
	}
	return seg, nil
}

// put stores blocks one behind the other. Those of p that are in mask move together, which destroys p unless they are at its
// beginning.
func (w *segmentWork) put(p []byte, mask uint32) (chunkstore.ID, error) {
	at := 0
	for first, n := range maskSpans(mask) {
		if at != first {
			copy(p[at*BlockSize:], p[first*BlockSize:(first+n)*BlockSize])
		}
		at += n
	}
	w.s.stored.Add(int64(at) * BlockSize)
	id, err := w.s.w.Put(p[:at*BlockSize])
	if err != nil {
		return id, fmt.Errorf("store: %w", err)
	}
	return id, nil
}

// storeChanges stores what of the dirty blocks differs from the parent.
func (w *segmentWork) storeChanges() error {
	var old tree.Segment
	var err error
	if w.old != nil {
		if old, err = tree.DecodeSegment(w.old); err != nil {
			return err
		}
	}
	p := w.buf[:SegmentSize]
	if err := w.readMask(p, w.data); err != nil {
		return err
	}
	changed, err := w.changed(&old, p)
	if err != nil {
		return err
	}
	keep := old.Mask() & w.valid &^ w.holes &^ changed
	if changed == 0 && keep == old.Mask() {
		w.results = append(w.results, segmentResult{same: true})
		return nil
	}
	seg, err := w.merge(&old, keep, p, changed)
	if err != nil {
		return err
	}
	w.results = append(w.results, segmentResult{
		record: seg.Encode(),
		blocks: bits.OnesCount32(keep|changed) - bits.OnesCount32(old.Mask()),
	})
	return nil
}

// changed gives those of the blocks read to p that differ from the parent's, and brings the fingerprints up to date. A block with
// another fingerprint counts as one that differs; one that is equal, or unknown, doesn't prove anything.
func (w *segmentWork) changed(old *tree.Segment, p []byte) (changed uint32, err error) {
	sums := w.prints[0]
	var unsure uint32
	for b := range maskBlocks(w.data) {
		sum := fingerprint(w.table, block(p, b))
		var before uint32
		if sums != nil {
			before = sums.get(b)
			sums.set(b, sum)
		}
		switch {
		case old.Mask()&(1<<b) == 0, before != 0 && before != sum:
			changed |= 1 << b
		default:
			unsure |= 1 << b
		}
	}
	if sums != nil {
		for b := range maskBlocks(w.holes) {
			sums.set(b, 0)
		}
	}
	if unsure == 0 {
		return changed, nil
	}
	if id, n, whole := old.Whole(); whole && w.data == tree.BlockMask(0, n) {
		// All of the old chunk was read: its hash tells whether it is the same, without reading the store.
		if chunkstore.Sum(p[:n*BlockSize]) == id {
			return 0, nil
		}
		return w.data, nil
	}
	was := w.buf[SegmentSize : 2*SegmentSize]
	err = w.s.repo.readBlocks(w.s.ctx, old, unsure, was)
	if errors.Is(err, chunkstore.ErrCorrupt) || errors.Is(err, chunkstore.ErrNotFound) {
		w.s.repo.log.ErrorContext(w.s.ctx, "the parent's data is damaged; what should be compared with it is stored again",
			"inode", w.f.in.Ino, "block", w.seg*SegmentBlocks, "error", err)
		return changed | unsure, nil
	}
	if err != nil {
		return 0, fmt.Errorf("compare with the parent: %w", err)
	}
	for b := range maskBlocks(unsure) {
		if !bytes.Equal(block(p, b), block(was, b)) {
			changed |= 1 << b
		}
	}
	return changed, nil
}

// merge gives a segment of the old blocks in keep and the blocks of p in changed. If that takes too many chunks, blocks of
// the old ones are stored again together with the changed ones.
func (w *segmentWork) merge(old *tree.Segment, keep uint32, p []byte, changed uint32) (tree.Segment, error) {
	kept := old.Keep(keep)
	if changed == 0 {
		return kept, nil
	}
	if len(kept.Chunks()) >= tree.MaxSegmentChunks {
		stay := mainChunk(&kept)
		// Not from the source: it saves what an epoch has changed, and blocks that are clean may be newer in it.
		if err := w.s.repo.readBlocks(w.s.ctx, old, keep&^stay, p); err != nil {
			return tree.Segment{}, fmt.Errorf("read the parent's blocks: %w", err)
		}
		kept, changed = kept.Keep(stay), changed|keep&^stay
	}
	delta, err := w.storeBlocks(p, changed)
	if err != nil {
		return tree.Segment{}, err
	}
	return interleave(&kept, &delta), nil
}

// mainChunk gives the blocks that lie in the chunk with the most of them, if those are at least half a segment's: storing these again
// would cost more than all the rest. Else it gives none, and the segment is stored whole.
func mainChunk(s *tree.Segment) (blocks uint32) {
	for _, id := range s.Chunks() {
		var m uint32
		for _, e := range s.Extents {
			if e.Chunk == id {
				m |= tree.BlockMask(e.First, e.Blocks)
			}
		}
		if bits.OnesCount32(m) >= SegmentBlocks/2 {
			return m
		}
	}
	return 0
}

// interleave joins two segments without common blocks.
func interleave(a, b *tree.Segment) (out tree.Segment) {
	x, y := a.Extents, b.Extents
	for len(x) > 0 && len(y) > 0 {
		if x[0].First < y[0].First {
			out.Append(x[0])
			x = x[1:]
		} else {
			out.Append(y[0])
			y = y[1:]
		}
	}
	for _, e := range append(x, y...) {
		out.Append(e)
	}
	return out
}
