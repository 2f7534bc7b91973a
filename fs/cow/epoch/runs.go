package epoch

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
)

// DirtyRuns yields the blocks that are marked one by one, own and merged, as ascending runs that don't touch.
func (i *Inode) DirtyRuns(yield func(first, n uint64) bool) {
	all := []*marks{&i.own}
	if m := i.merged(); m != nil {
		all = append(all, m)
	}
	c := coalescer{yield: yield}
	var word uint64
	for _, m := range all {
		word |= atomic.LoadUint64(&m.rec.bits)
	}
	c.word(0, word)
	runs, slots := collect(all)
	for len(runs) > 0 || len(slots) > 0 {
		if len(slots) == 0 || len(runs) > 0 && runs[0].first <= slots[0].slot {
			lo := max(64, runs[0].first*slotBlocks)
			c.add(lo, runs[0].end()*slotBlocks-lo)
			for len(slots) > 0 && slots[0].slot < runs[0].end() {
				slots = slots[1:]
			}
			runs = runs[1:]
		} else {
			slots = c.slot(slots)
		}
		if c.stopped {
			return
		}
	}
	c.flush()
}

// collect returns the runs and the bitmaps of several marks in ascending order.
func collect(all []*marks) (runs []run, slots []*slotRec) {
	for _, m := range all {
		t := m.table.Load()
		if t == nil {
			continue
		}
		runs = append(runs, t.runs...)
		for k := range t.slots {
			if s := t.slots[k].Load(); s != nil {
				slots = append(slots, s)
			}
		}
	}
	slices.SortFunc(slots, func(a, b *slotRec) int { return cmp.Compare(a.slot, b.slot) })
	return mergeRuns(runs), slots
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

// slot adds the blocks of the first slot's bitmaps, of which there may be two, and returns the other slots.
func (c *coalescer) slot(slots []*slotRec) []*slotRec {
	n := 1
	if len(slots) > 1 && slots[1].slot == slots[0].slot {
		n = 2
	}
	for k := range slots[0].bits {
		var w uint64
		for _, s := range slots[:n] {
			w |= atomic.LoadUint64(&s.bits[k])
		}
		c.word(slots[0].slot*slotBlocks+uint64(k)*64, w)
	}
	return slots[n:]
}
