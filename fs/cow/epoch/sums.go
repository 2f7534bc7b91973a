package epoch

import (
	"sync/atomic"

	"graphvol/index"
)

// Running checksums of the marks. Each is a sum in which every bit has its own weight, so that setting bits adds theirs, in any order and
// from any goroutine. The marks come first: a process that is killed between the two leaves a record that looks damaged, of which too
// much is dirty then, never too little.

// bitsWeight is what bits of word w add.
func bitsWeight(w, bits uint64) uint32 {
	k := uint32(w)*0x9e3779b0 + 0x85ebca6b // odd
	return uint32(bits)*k + uint32(bits>>32)*(k^0x5bd1e994)
}

// headWeight is what an inode's flags and gen add.
func headWeight(flags uint32, gen uint64) uint32 {
	w := flags * 0x85ebca6b
	if gen != 0 {
		w += sum(gen)
	}
	return w
}

// orWord sets bits of word w at p, and adds their weight to sum; if they are set already, it doesn't write.
func orWord(p *uint64, sum *uint32, w, mask uint64) {
	if atomic.LoadUint64(p)&mask == mask {
		return
	}
	if added := mask &^ atomic.OrUint64(p, mask); added != 0 {
		atomic.AddUint32(sum, bitsWeight(w, added))
	}
}

// mend looks at the checksums of an inode that was loaded. What is damaged says too much afterwards.
func (r *inodeRec) mend() (damaged bool) {
	if r.bitsSum != bitsWeight(0, r.bits) {
		r.bits, damaged = ^uint64(0), true
		r.bitsSum = bitsWeight(0, r.bits)
	}
	if r.headSum != headWeight(r.flags, r.gen) {
		r.flags |= uint32(index.DirtyAttr | index.DirtyContent | index.DirtyNames)
		r.gen, damaged = 0, true
		r.headSum = headWeight(r.flags, 0)
	}
	return damaged
}

// mend does the same for a slot.
func (s *slotRec) mend() (damaged bool) {
	var got uint32
	for w, bits := range s.bits {
		got += bitsWeight(uint64(w), bits)
	}
	if got == s.bitsSum {
		return false
	}
	first := uint64(0)
	if s.slot == 0 {
		first = 1 // those are the inode's
	}
	s.bits, s.bitsSum = [slotWords]uint64{}, 0
	for w := first; w < slotWords; w++ {
		orWord(&s.bits[w], &s.bitsSum, w, ^uint64(0))
	}
	return true
}
