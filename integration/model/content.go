package model

import (
	"maps"
	"slices"
)

const blockSize = 4096

type block = [blockSize]byte

// extent state of a block that is present in Content.blocks. Absent blocks are holes.
type content struct {
	size int64
	// blocks maps block numbers to bytes that are never changed in place, so that copies share them. A nil block
	// reads as zeros and may be a hole or not. Blocks past the end stand for preallocated space.
	blocks map[int64]*block
	log    []string // the last operations, never changed in place
}

func newContent() *content { return &content{blocks: map[int64]*block{}} }

func (c *content) clone() *content {
	return &content{size: c.size, blocks: maps.Clone(c.blocks), log: c.log}
}

// write puts p at off and extends the file when needed.
func (c *content) write(off int64, p []byte) {
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		n, in := off/blockSize, off%blockSize
		b := new(block)
		if old := c.blocks[n]; old != nil {
			*b = *old
		}
		k := copy(b[in:], p)
		c.blocks[n] = b
		p, off = p[k:], off+int64(k)
	}
}

func (c *content) read(off int64, n int) []byte {
	n = int(max(0, min(int64(n), c.size-off)))
	out := make([]byte, n)
	for p := out; len(p) > 0; {
		num, in := off/blockSize, off%blockSize
		k := min(len(p), int(blockSize-in))
		if b := c.blocks[num]; b != nil {
			copy(p[:k], b[in:])
		}
		p, off = p[k:], off+int64(k)
	}
	return out
}

func (c *content) truncate(size int64) {
	if size < c.size {
		for n := range c.blocks {
			if n*blockSize >= size {
				delete(c.blocks, n)
			}
		}
		c.zeroInside(size, roundUp(size))
	}
	c.size = size
}

// zeroInside zeroes bytes of blocks that are there, and leaves holes as they are.
func (c *content) zeroInside(from, to int64) {
	for from < to {
		n, in := from/blockSize, from%blockSize
		k := min(blockSize-in, to-from)
		if old := c.blocks[n]; old != nil {
			b := *old
			clear(b[in : in+k])
			c.blocks[n] = &b
		}
		from += k
	}
}

// punch makes a hole of [off, off+n). ext4 leaves blocks that are preallocated beyond the end as they are.
func (c *content) punch(off, n int64) {
	for first, last := off, min(off+n, roundUp(c.size)); first < last; {
		num, in := first/blockSize, first%blockSize
		k := min(blockSize-in, last-first)
		if k == blockSize {
			delete(c.blocks, num)
		} else {
			c.zeroInside(first, first+k)
		}
		first += k
	}
}

// allocate makes every block of the range present, its bytes unchanged.
func (c *content) allocate(off, n int64) {
	for num := off / blockSize; num*blockSize < off+n; num++ {
		if _, ok := c.blocks[num]; !ok {
			c.blocks[num] = nil
		}
	}
}

func (c *content) zeroRange(off, n int64) {
	c.allocate(off, n)
	for first, last := off, off+n; first < last; {
		num, in := first/blockSize, first%blockSize
		k := min(blockSize-in, last-first)
		if k == blockSize {
			c.blocks[num] = nil
		} else {
			c.zeroInside(first, first+k)
		}
		first += k
	}
}

// collapse removes whole blocks; insert makes room for them with a hole.
func (c *content) collapse(off, n int64) {
	out := map[int64]*block{}
	for num, b := range c.blocks {
		switch at := num * blockSize; {
		case at < off:
			out[num] = b
		case at >= off+n:
			out[num-n/blockSize] = b
		}
	}
	c.blocks, c.size = out, c.size-n
}

func (c *content) insert(off, n int64) {
	out := map[int64]*block{}
	for num, b := range c.blocks {
		if num*blockSize < off {
			out[num] = b
		} else {
			out[num+n/blockSize] = b
		}
	}
	c.blocks, c.size = out, c.size+n
}

func (c *content) numbers() []int64 { return slices.Sorted(maps.Keys(c.blocks)) }

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }
