package tree

import (
	"math/bits"

	"graphvol/chunkstore"
)

// Bounds of a segment.
const (
	BlockSize        = 4096
	SegmentBlocks    = 32
	SegmentSize      = SegmentBlocks * BlockSize
	MaxSegmentChunks = 8
)

const extentsTag = 64

// Extent says that Blocks blocks of a segment, from block First on, are those of a chunk from block ChunkFirst on.
type Extent struct {
	First, Blocks, ChunkFirst uint8
	Chunk                     chunkstore.ID
}

// Segment is where the data of a segment is: extents that ascend and don't overlap. Blocks in none are holes. Make one by Append.
type Segment struct {
	Extents []Extent
}

// Append adds an extent behind the last one, merging the two if they are one.
func (s *Segment) Append(e Extent) {
	if k := len(s.Extents); k > 0 {
		last := &s.Extents[k-1]
		if last.Chunk == e.Chunk && last.First+last.Blocks == e.First && last.ChunkFirst+last.Blocks == e.ChunkFirst {
			last.Blocks += e.Blocks
			return
		}
	}
	s.Extents = append(s.Extents, e)
}

// Mask gives the blocks that are data, block 0 in the lowest bit.
func (s *Segment) Mask() (m uint32) {
	for _, e := range s.Extents {
		m |= BlockMask(e.First, e.Blocks)
	}
	return m
}

// BlockMask is the mask of n blocks from block first on.
func BlockMask[T ~uint8 | ~int | ~uint64](first, n T) uint32 {
	return uint32((uint64(1)<<n - 1) << first)
}

// Keep gives the segment without the blocks that aren't in mask.
func (s *Segment) Keep(mask uint32) Segment {
	var out Segment
	for _, e := range s.Extents {
		m := BlockMask(e.First, e.Blocks) & mask
		for m != 0 {
			first := uint8(bits.TrailingZeros32(m))
			n := uint8(bits.TrailingZeros32(^(m >> first)))
			out.Append(Extent{First: first, Blocks: n, ChunkFirst: e.ChunkFirst + first - e.First, Chunk: e.Chunk})
			m &^= BlockMask(first, n)
		}
	}
	return out
}

// Chunks gives the distinct chunks in order of first use.
func (s *Segment) Chunks() []chunkstore.ID {
	var ids []chunkstore.ID
	for i := range s.Extents {
		if chunkIndex(ids, &s.Extents[i]) < 0 {
			ids = append(ids, s.Extents[i].Chunk)
		}
	}
	return ids
}

func chunkIndex(ids []chunkstore.ID, e *Extent) int {
	for i := range ids {
		if ids[i] == e.Chunk {
			return i
		}
	}
	return -1
}

// Whole gives the chunk of a segment that is nothing but the first blocks of one chunk.
func (s *Segment) Whole() (id chunkstore.ID, blocks int, ok bool) {
	if len(s.Extents) != 1 || s.Extents[0].First != 0 || s.Extents[0].ChunkFirst != 0 {
		return id, 0, false
	}
	return s.Extents[0].Chunk, int(s.Extents[0].Blocks), true
}

// Placed gives the chunk that most of those blocks come from whose place in the segment is that in their chunk, as in the chunk that
// the segment was first stored as; end is behind the last one. end is 0 if there is none.
func (s *Segment) Placed() (id chunkstore.ID, end int) {
	most := 0
	for _, of := range s.Chunks() {
		blocks, last, placed := 0, 0, true
		for _, e := range s.Extents {
			if e.Chunk == of {
				blocks, last = blocks+int(e.Blocks), int(e.First+e.Blocks)
				placed = placed && e.ChunkFirst == e.First
			}
		}
		if placed && blocks > most {
			id, end, most = of, last, blocks
		}
	}
	return id, end
}

// Encode gives the segment's record, nil for a segment without data. It has at most MaxSegmentChunks chunks.
func (s *Segment) Encode() []byte {
	if len(s.Extents) == 0 {
		return nil
	}
	if id, n, ok := s.Whole(); ok {
		return append(append(make([]byte, 0, 33), byte(n)), id[:]...)
	}
	ids := s.Chunks()
	b := make([]byte, 0, 2+len(ids)*32+len(s.Extents)*3)
	b = append(b, extentsTag+byte(len(s.Extents)), byte(len(ids)))
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	for i := range s.Extents {
		e := &s.Extents[i]
		v := uint32(e.First) | uint32(e.Blocks-1)<<5 | uint32(chunkIndex(ids, e))<<10 | uint32(e.ChunkFirst)<<13
		b = append(b, byte(v), byte(v>>8), byte(v>>16))
	}
	return b
}

// DecodeSegment decodes a segment record.
func DecodeSegment(p []byte) (Segment, error) {
	d := &decoder{p: p}
	tag := d.byte()
	if tag >= 1 && tag <= SegmentBlocks {
		s := Segment{Extents: []Extent{{Blocks: tag, Chunk: d.id()}}}
		return s, d.end()
	}
	if tag <= extentsTag || tag > extentsTag+SegmentBlocks {
		d.fail("segment of unknown form %d", tag)
		return Segment{}, d.err
	}
	c := d.byte()
	if c == 0 || c > MaxSegmentChunks {
		d.fail("segment with %d chunks", c)
	}
	ids := make([]chunkstore.ID, 0, MaxSegmentChunks)
	for range c {
		ids = append(ids, d.id())
	}
	s := Segment{Extents: make([]Extent, 0, tag-extentsTag)}
	for range tag - extentsTag {
		d.extent(&s, ids)
	}
	if err := d.end(); err != nil {
		return Segment{}, err
	}
	return s, d.checkSegment(&s, ids)
}

func (d *decoder) extent(s *Segment, ids []chunkstore.ID) {
	p := d.bytes(3)
	if d.err != nil {
		return
	}
	v := uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16
	e := Extent{First: uint8(v & 31), Blocks: uint8(v>>5&31) + 1, ChunkFirst: uint8(v >> 13 & 31)}
	k := int(v >> 10 & 7)
	if v>>18 != 0 || k >= len(ids) || e.First+e.Blocks > SegmentBlocks || e.ChunkFirst+e.Blocks > SegmentBlocks {
		d.fail("bad extent %06x", v)
		return
	}
	e.Chunk = ids[k]
	if n := len(s.Extents); n > 0 && s.Extents[n-1].First+s.Extents[n-1].Blocks > e.First {
		d.fail("extents overlap")
		return
	}
	s.Extents = append(s.Extents, e)
}

// checkSegment refuses what Encode wouldn't write.
func (d *decoder) checkSegment(s *Segment, ids []chunkstore.ID) error {
	var again Segment
	for _, e := range s.Extents {
		again.Append(e)
	}
	_, _, whole := s.Whole()
	used := s.Chunks()
	ok := len(again.Extents) == len(s.Extents) && !whole && len(used) == len(ids)
	for i := range used {
		ok = ok && used[i] == ids[i]
	}
	if !ok {
		d.fail("segment isn't in its only form")
	}
	return d.err
}
