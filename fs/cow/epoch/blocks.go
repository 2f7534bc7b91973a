package epoch

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"

	"graphvol/index"
)

// table finds the bitmaps of an inode: open addressing by slot number, at most three quarters full. Lookups take no
// lock: slots appear in it and never go. A larger table replaces a full one, and who still looks into the old one may miss
// a new slot, so a miss is checked again under Inode.mu before a slot is made.
type table struct {
	slots []atomic.Pointer[slotRec] // length is 0 or a power of two
	used  int                       // guarded by Inode.mu
	runs  []run                     // full slots; ascending, disjoint, never adjacent; immutable
}

// run is n slots in which all blocks are marked.
type run struct{ first, n uint64 }

func (r run) end() uint64 { return r.first + r.n }

func hash(no uint64) uint64 { return no * 0x9e3779b97f4a7c15 >> 20 }

// find returns the bitmap of a slot, nil if there is none.
func (t *table) find(no uint64) *slotRec {
	if t == nil || len(t.slots) == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	for h := hash(no) & mask; ; h = (h + 1) & mask {
		s := t.slots[h].Load()
		if s == nil || s.slot == no {
			return s
		}
	}
}

// insert adds a slot to a table that has room for it.
func (t *table) insert(s *slotRec) {
	mask := uint64(len(t.slots) - 1)
	h := hash(s.slot) & mask
	for t.slots[h].Load() != nil {
		h = (h + 1) & mask
	}
	t.slots[h].Store(s)
	t.used++
}

// fullUntil returns the end of the run that a slot is in, 0 if it is in none.
func (t *table) fullUntil(no uint64) uint64 {
	if t == nil || len(t.runs) == 0 {
		return 0
	}
	k, ok := slices.BinarySearchFunc(t.runs, no, func(r run, no uint64) int { return cmp.Compare(r.first, no) })
	if !ok {
		k--
	}
	if k >= 0 && no < t.runs[k].end() {
		return t.runs[k].end()
	}
	return 0
}

// addSlotLocked makes a slot known, in a larger table if need be. Inode.mu is held.
func (i *Inode) addSlotLocked(s *slotRec) {
	t := i.table.Load()
	if t == nil || (t.used+1)*4 > len(t.slots)*3 {
		bigger := &table{slots: make([]atomic.Pointer[slotRec], 2)}
		if t != nil {
			bigger.slots = make([]atomic.Pointer[slotRec], max(2, 2*len(t.slots)))
			bigger.runs = t.runs
			for k := range t.slots {
				if old := t.slots[k].Load(); old != nil {
					bigger.insert(old)
				}
			}
		}
		bigger.insert(s)
		i.table.Store(bigger)
		return
	}
	t.insert(s)
}

// addRunLocked makes a run known. Inode.mu is held.
func (i *Inode) addRunLocked(x run) {
	next := new(table)
	if t := i.table.Load(); t != nil {
		*next = table{slots: t.slots, used: t.used, runs: t.runs}
	}
	next.runs = mergeRuns(append(slices.Clone(next.runs), x))
	i.table.Store(next)
}

// mergeRuns sorts runs and joins those that overlap or touch, in place.
func mergeRuns(rs []run) []run {
	slices.SortFunc(rs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	out := rs[:0]
	for _, r := range rs {
		if last := len(out) - 1; last >= 0 && r.first <= out[last].end() {
			out[last].n = max(out[last].end(), r.end()) - out[last].first
			continue
		}
		out = append(out, r)
	}
	return out
}

// clampRange limits a range of blocks to what a file can have, and returns its first and last block.
func clampRange(first, n uint64) (lo, hi uint64, ok bool) {
	if n == 0 || first >= maxBlocks {
		return 0, 0, false
	}
	return first, first + min(n, maxBlocks-first) - 1, true
}

// maskOf returns the bits of word w that are blocks lo to hi.
func maskOf(w, lo, hi uint64) uint64 {
	mask := ^uint64(0)
	if lo > w*64 {
		mask <<= lo - w*64
	}
	if end := w*64 + 63; hi < end {
		mask &= ^uint64(0) >> (end - hi)
	}
	return mask
}

// all tells whether blocks lo to hi are marked.
func (i *Inode) all(lo, hi uint64) bool {
	if lo < 64 {
		mask := maskOf(0, lo, hi)
		if atomic.LoadUint64(&i.rec.bits)&mask != mask {
			return false
		}
		if hi < 64 {
			return true
		}
		lo = 64
	}
	t := i.table.Load()
	for no := lo / slotBlocks; no <= hi/slotBlocks; no++ {
		s := t.find(no)
		if s != nil && s.all(max(lo, no*slotBlocks), min(hi, no*slotBlocks+slotBlocks-1)) {
			continue
		}
		end := t.fullUntil(no)
		if end == 0 {
			return false
		}
		no = end - 1
	}
	return true
}

// all tells whether blocks lo to hi, which are in the slot, are marked.
func (s *slotRec) all(lo, hi uint64) bool {
	for w := lo / 64; w <= hi/64; w++ {
		mask := maskOf(w, lo, hi)
		if atomic.LoadUint64(&s.bits[w%slotWords])&mask != mask {
			return false
		}
	}
	return true
}

// any tells whether one of the blocks lo to hi, which are in the slot, is marked.
func (s *slotRec) any(lo, hi uint64) bool {
	for w := lo / 64; w <= hi/64; w++ {
		if atomic.LoadUint64(&s.bits[w%slotWords])&maskOf(w, lo, hi) != 0 {
			return true
		}
	}
	return false
}

// any tells whether one of the blocks lo to hi is marked.
func (i *Inode) any(lo, hi uint64) bool {
	if lo < 64 {
		if atomic.LoadUint64(&i.rec.bits)&maskOf(0, lo, hi) != 0 {
			return true
		}
		if hi < 64 {
			return false
		}
		lo = 64
	}
	t := i.table.Load()
	if t == nil {
		return false
	}
	a, b := lo/slotBlocks, hi/slotBlocks
	for _, r := range t.runs {
		if r.first <= b && a < r.end() {
			return true
		}
	}
	in := func(s *slotRec) bool {
		return s != nil && s.slot >= a && s.slot <= b &&
			s.any(max(lo, s.slot*slotBlocks), min(hi, s.slot*slotBlocks+slotBlocks-1))
	}
	if b-a < uint64(len(t.slots)) {
		for no := a; no <= b; no++ {
			if in(t.find(no)) {
				return true
			}
		}
		return false
	}
	for k := range t.slots {
		if in(t.slots[k].Load()) {
			return true
		}
	}
	return false
}

func (s *slotRec) mark(lo, hi uint64) {
	for w := lo / 64; w <= hi/64; w++ {
		orWord(&s.bits[w%slotWords], &s.bitsSum, w%slotWords, maskOf(w, lo, hi))
	}
}

// slot returns a slot, and makes it if need be.
func (i *Inode) slot(no uint64) *slotRec {
	if s := i.table.Load().find(no); s != nil {
		return s
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if s := i.table.Load().find(no); s != nil {
		return s
	}
	s := i.e.newSlot(i.Ino(), no)
	i.addSlotLocked(s)
	return s
}

// mark marks blocks lo to hi.
func (i *Inode) mark(lo, hi uint64) {
	if lo < 64 {
		orWord(&i.rec.bits, &i.rec.bitsSum, 0, maskOf(0, lo, hi))
		if hi < 64 {
			return
		}
		lo = 64
	}
	// Whole slots, where the first counts as whole without its first 64 blocks.
	whole := run{first: (lo + slotBlocks - 1) / slotBlocks}
	if lo == 64 {
		whole.first = 0
	}
	if end := (hi + 1) / slotBlocks; end >= whole.first+minRun {
		whole.n = end - whole.first
		i.markRun(whole)
	}
	for no := lo / slotBlocks; no <= hi/slotBlocks; no++ {
		if whole.n > 0 && no == whole.first {
			no = whole.end() - 1
			continue
		}
		i.slot(no).mark(max(lo, no*slotBlocks), min(hi, no*slotBlocks+slotBlocks-1))
	}
}

// markRun marks whole slots.
func (i *Inode) markRun(x run) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.table.Load().fullUntil(x.first) >= x.end() {
		return
	}
	i.e.addRun(i.Ino(), x)
	i.addRunLocked(x)
}

// Blocks tells whether MarkBlocks was called for all of n blocks of 4 KiB. It takes no lock.
func (i *Inode) Blocks(first, n uint64) bool {
	lo, hi, ok := clampRange(first, n)
	return !ok || i.all(lo, hi)
}

// MarkBlocks marks n blocks of 4 KiB. It takes no lock where the bitmaps are there already. Blocks that no file can have
// (numbers from 2^52 on) are ignored.
func (i *Inode) MarkBlocks(first, n uint64) {
	lo, hi, ok := clampRange(first, n)
	if ok && !i.all(lo, hi) {
		i.e.store(func() { i.mark(lo, hi) })
	}
}

// Dirty tells whether any of n blocks of 4 KiB may have changed: it is marked, or the content as a whole is, or the inode is new.
func (i *Inode) Dirty(first, n uint64) bool {
	lo, hi, ok := clampRange(first, n)
	if !ok {
		return false
	}
	return i.Flags()&(index.DirtyContent|index.DirtyFresh) != 0 || i.any(lo, hi)
}

// Count returns how many blocks are marked one by one; flags don't count.
func (i *Inode) Count() uint64 {
	if i.table.Load() == nil {
		return uint64(bits.OnesCount64(atomic.LoadUint64(&i.rec.bits)))
	}
	var total uint64
	for _, n := range i.DirtyRuns {
		total += n
	}
	return total
}
