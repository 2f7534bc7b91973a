package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/bits"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

var errNotRegular = errors.New("not a regular file")

func (rd *Reader) file(ctx context.Context, ino uint64) (*tree.Record, error) {
	rec, err := rd.record(ctx, ino)
	if err == nil && !rec.IsRegular() {
		err = rd.inodeError(ino, errNotRegular)
	}
	return rec, err
}

// ReadAt reads from a regular file. At the end of the file it returns io.EOF with what there was.
func (rd *Reader) ReadAt(ctx context.Context, ino uint64, p []byte, off int64) (int, error) {
	rec, err := rd.file(ctx, ino)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= rec.Size {
		return 0, io.EOF
	}
	short := false
	if left := rec.Size - off; int64(len(p)) > left {
		p, short = p[:left], true
	}
	for done := 0; done < len(p); {
		seg := uint64(off+int64(done)) / SegmentSize
		at := int(uint64(off+int64(done)) % SegmentSize)
		n := min(len(p)-done, SegmentSize-at)
		if len(p) < SegmentSize {
			rd.readAhead(ctx, rec, seg) // who reads more at a time is the kernel, and has its own requests under way
		}
		if err := rd.readSegment(ctx, rec, seg, p[done:done+n], at); err != nil {
			return done, rd.inodeError(ino, err)
		}
		done += n
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readSegment reads bytes at..at+len(p) of a segment.
func (rd *Reader) readSegment(ctx context.Context, rec *tree.Record, seg uint64, p []byte, at int) error {
	val, ok, err := rd.repo.nodes.Get(ctx, rec.Content, seg, "")
	if err != nil {
		return err
	}
	if !ok {
		clear(p)
		return nil
	}
	s, err := tree.DecodeSegment(val)
	if err != nil {
		return err
	}
	if id, blocks, whole := s.Whole(); whole {
		if done, err := rd.readLive(ctx, rec, liveSegment{seg, val, id, blocks}, p, at); done || err != nil {
			return err
		}
	}
	return rd.readStored(ctx, &s, p, at)
}

func (rd *Reader) readStored(ctx context.Context, s *tree.Segment, p []byte, at int) error {
	placed, err := rd.readPlaced(ctx, s, p)
	if err != nil {
		return err
	}
	end := at // everything before is filled
	for i := range s.Extents {
		e := &s.Extents[i]
		from, to := max(int(e.First)*BlockSize, at), min(int(e.First+e.Blocks)*BlockSize, at+len(p))
		if from >= to {
			continue
		}
		if e.Chunk != placed {
			if err := rd.copyExtent(ctx, e, p[from-at:to-at], from); err != nil {
				return err
			}
		}
		clear(p[end-at : from-at])
		end = to
	}
	clear(p[end-at:])
	return nil
}

// copyExtent fills p with an extent's bytes from byte from of its segment on.
func (rd *Reader) copyExtent(ctx context.Context, e *tree.Extent, p []byte, from int) error {
	data, err := rd.repo.chunks.get(ctx, e.Chunk)
	if err != nil {
		return err
	}
	from += (int(e.ChunkFirst) - int(e.First)) * BlockSize
	if from+len(p) > len(data) {
		return &chunkstore.CorruptError{Chunk: e.Chunk, Reason: "shorter than a segment that refers to it"}
	}
	copy(p, data[from:])
	return nil
}

// readPlaced reads the chunk that has most of a segment right into p, if p is the whole segment and the chunk's blocks are in the
// same places. It goes past the cache: a file that is read from end to end would drive out what is read at random. It gives
// the chunk whose bytes are where they belong then; the zero ID if there is none.
func (rd *Reader) readPlaced(ctx context.Context, s *tree.Segment, p []byte) (placed chunkstore.ID, err error) {
	if len(p) < SegmentSize {
		return placed, nil
	}
	id, end := s.Placed()
	if end < SegmentBlocks/2 || rd.repo.chunks.has(id) {
		return placed, nil
	}
	data, err := rd.repo.store.Reread(ctx, id, p[:0:len(p)]) // p may be a part of a larger buffer
	if err != nil {
		return placed, err
	}
	if len(data) < end*BlockSize {
		return placed, &chunkstore.CorruptError{Chunk: id, Reason: "shorter than a segment that refers to it"}
	}
	copy(p, data) // data is p's own, unless the chunk is longer than a segment
	return id, nil
}

// liveSegment is a segment that is nothing but the first blocks of one chunk.
type liveSegment struct {
	seg    uint64
	record []byte
	chunk  chunkstore.ID
	blocks int
}

// readLive takes the bytes from the live volume if they provably are the snapshot's.
func (rd *Reader) readLive(ctx context.Context, rec *tree.Record, s liveSegment, p []byte, at int) (bool, error) {
	live, b := rd.repo.liveBase()
	if live == nil || at+len(p) > s.blocks*BlockSize || rd.repo.chunks.has(s.chunk) {
		return false, nil
	}
	if same, err := rd.unchangedSince(ctx, b, rec, s); !same {
		return false, err
	}
	start := int64(s.seg) * SegmentSize
	part := livePart{rec.Ino, rec.Gen, s.seg, s.chunk}
	if !rd.repo.proven.Has(part) {
		mine, err := rd.repo.proven.begin(ctx, part)
		if err != nil {
			return false, err
		}
		if mine {
			ok := rd.verifyLive(ctx, live, b, part, s.blocks, rec.Size, p, at)
			rd.repo.proven.end(part, ok)
			return ok, nil
		}
		if !rd.repo.proven.Has(part) {
			return false, nil
		}
	}
	ok, err := live.ReadClean(ctx, b.id, rec.Ino, rec.Gen, p, start+int64(at))
	return ok && err == nil, nil // the store has it too
}

// verifyLive reads all of a segment from the live volume, and fills p if its hash is right.
func (rd *Reader) verifyLive(ctx context.Context, live Live, b *base, part livePart, blocks int, size int64, p []byte, at int) bool {
	if loc, ok, err := rd.repo.db.Locate(part.chunk); err != nil || !ok || int(loc.RawLen) != blocks*BlockSize {
		return false // the file became shorter: its chunk has more, and can't be hashed from the file
	}
	bp := segmentBuffers.Get().(*[]byte)
	defer segmentBuffers.Put(bp)
	chunk := (*bp)[:blocks*BlockSize]
	start := int64(part.seg) * SegmentSize
	inside := min(int64(len(chunk)), size-start)
	clear(chunk[inside:])
	if ok, err := live.ReadClean(ctx, b.id, part.ino, part.gen, chunk[:inside], start); !ok || err != nil {
		return false
	}
	if chunkstore.Sum(chunk) != part.chunk {
		rd.repo.log.WarnContext(ctx, "a file of the live volume differs from its snapshot though nothing has changed it through the mount; reading the stored copy",
			"snapshot", rd.snap.Name, "inode", part.ino, "offset", start)
		return false
	}
	copy(p, chunk[at:])
	return true
}

// unchangedSince tells whether the newest complete snapshot has the same segment.
func (rd *Reader) unchangedSince(ctx context.Context, b *base, rec *tree.Record, s liveSegment) (bool, error) {
	if b.id == rd.snap.ID {
		return true, nil
	}
	newest, ok, err := view{nodes: rd.repo.nodes, root: b.root}.record(ctx, rec.Ino)
	if err != nil || !ok || newest.Gen != rec.Gen {
		return false, nil // damage of another snapshot is no reason to fail here
	}
	val, ok, err := rd.repo.nodes.Get(ctx, newest.Content, s.seg, "")
	return err == nil && ok && bytes.Equal(val, s.record), nil
}

// NextData gives the first range of data at or after off; io.EOF if there is none.
func (rd *Reader) NextData(ctx context.Context, ino uint64, off int64) (start, end int64, err error) {
	rec, err := rd.file(ctx, ino)
	if err != nil {
		return 0, 0, err
	}
	if off < 0 || off >= rec.Size {
		return 0, 0, io.EOF
	}
	if int64(rec.Blocks) == int64(blocksOf(rec.Size)) {
		return off, rec.Size, nil
	}
	first, next, err := rd.dataRun(ctx, rec, uint64(off)/BlockSize)
	if err != nil {
		return 0, 0, rd.inodeError(ino, err)
	}
	// A file may end at the last offset there is, so its last block's end is no offset.
	if next = min(next, blocksOf(rec.Size)); first >= next {
		return 0, 0, io.EOF
	}
	end = rec.Size
	if next < blocksOf(rec.Size) {
		end = int64(next) * BlockSize
	}
	return max(int64(first)*BlockSize, off), end, nil
}

// dataRun gives the first run [first, next) of data blocks at or after a block; an empty one if there is none.
func (rd *Reader) dataRun(ctx context.Context, rec *tree.Record, block uint64) (first, next uint64, err error) {
	found := false
	err = rd.repo.nodes.Ascend(ctx, rec.Content, block/SegmentBlocks, func(e tree.Entry) error {
		s, err := tree.DecodeSegment(e.Value)
		if err != nil {
			return err
		}
		at := e.Key * SegmentBlocks
		mask := s.Mask()
		if at < block {
			mask &^= tree.BlockMask(0, block-at)
		}
		if mask == 0 {
			return nil
		}
		from := at + uint64(bits.TrailingZeros32(mask))
		switch {
		case !found:
			found, first = true, from
		case from != next:
			return fs.SkipAll
		}
		run := uint64(bits.TrailingZeros32(^(mask >> (from - at))))
		if next = from + run; next != at+SegmentBlocks {
			return fs.SkipAll
		}
		return nil
	})
	return first, next, err
}

// NextHole gives the start of the first hole at or after off; the end of the file counts as one. io.EOF if off is at or after the
// end.
func (rd *Reader) NextHole(ctx context.Context, ino uint64, off int64) (int64, error) {
	rec, err := rd.file(ctx, ino)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= rec.Size {
		return 0, io.EOF
	}
	start, end, err := rd.NextData(ctx, ino, off)
	switch {
	case errors.Is(err, io.EOF) || err == nil && start > off:
		return off, nil
	case err != nil:
		return 0, err
	}
	return end, nil
}
