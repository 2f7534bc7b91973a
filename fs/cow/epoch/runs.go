package epoch

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
)

// DirtyRuns yields the blocks that are marked one by one as ascending runs that don't touch.
func (i *Inode) DirtyRuns(yield func(first, n uint64) bool) {
	c := coalescer{yield: yield}
	c.word(0, atomic.LoadUint64(&i.rec.bits))
	runs, slots := i.table.Load().sorted()
	for len(runs) > 0 || len(slots) > 0 {
		if len(slots) == 0 || len(runs) > 0 && runs[0].first <= slots[0].slot {
			lo := max(64, runs[0].first*slotBlocks)
			c.add(lo, runs[0].end()*slotBlocks-lo)
			for len(slots) > 0 && slots[0].slot < runs[0].end() {
				slots = slots[1:]
			}
			runs = runs[1:]
		} else {
			c.slot(slots[0])
			slots = slots[1:]
		}
		if c.stopped {
			return
		}
	}
	c.flush()
}

// sorted returns the runs and the bitmaps in ascending order.
func (t *table) sorted() (runs []run, slots []*slotRec) {
	if t == nil {
		return nil, nil
	}
	for k := range t.slots {
		if s := t.slots[k].Load(); s != nil {
			slots = append(slots, s)
		}
	}
	slices.SortFunc(slots, func(a, b *slotRec) int { return cmp.Compare(a.slot, b.slot) })
	return t.runs, slots
}

// coalescer joins runs that touch.
type coalescer struct {
	yield      func(first, n uint64) bool
	first, end uint64
	stopped    bool
}

func (c *coalescer) add(first, n uint64) {
	if c.stopped {
		return
	}
	if c.end == first && c.first < c.end {
		c.end = first + n
		return
	}
	c.flush()
	c.first, c.end = first, first+n
}

func (c *coalescer) flush() {
	if c.first < c.end && !c.stopped {
		c.stopped = !c.yield(c.first, c.end-c.first)
	}
}

// word adds the blocks of a word of bits; base is the number of the first.
func (c *coalescer) word(base, w uint64) {
	for w != 0 {
		skip := bits.TrailingZeros64(w)
		n := bits.TrailingZeros64(^(w >> skip))
		c.add(base+uint64(skip), uint64(n))
		if skip+n == 64 {
			return
		}
		w &= ^uint64(0) << (skip + n)
	}
}

// slot adds the blocks of a bitmap.
func (c *coalescer) slot(s *slotRec) {
	for k := range s.bits {
		c.word(s.slot*slotBlocks+uint64(k)*64, atomic.LoadUint64(&s.bits[k]))
	}
}
