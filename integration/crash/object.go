package crash

import (
	"fmt"
	"maps"
	"slices"
)

const (
	blockSize  = 4096
	sectorSize = 512
)

// block is never changed in place; nil reads as zeros.
type block = *[blockSize]byte

// span is a file's size, and the least that a power cut in the middle of the call may leave of it: files become longer in steps.
type span struct{ least, size int64 }

// object is a file or a directory.
type object struct {
	ino uint64 // 0: not known, the power was cut before creating it had returned
	dir bool

	named   bool // a durable name in a durable directory has meant it
	removed bool // somebody asked to remove one of its names

	size   history[span]
	mode   history[uint32]
	xattr  history[string] // value of user.crash
	blocks map[int64]*history[block]
	names  map[string]*history[*object]
	log    []string // the latest calls that concern it
}

const logLength = 16

func (f *object) note(format string, args ...any) {
	f.log = append(f.log[max(0, len(f.log)-logLength+1):], fmt.Sprintf(format, args...))
}

func (f *object) block(n int64) *history[block] {
	h := f.blocks[n]
	if h == nil {
		h = &history[block]{}
		f.blocks[n] = h
	}
	return h
}

func (f *object) name(name string) *history[*object] {
	h := f.names[name]
	if h == nil {
		h = &history[*object]{}
		f.names[name] = h
	}
	return h
}

// entry is what a name means now; nil if it is free.
func (f *object) entry(name string) *object {
	if h := f.names[name]; h != nil {
		return h.last()
	}
	return nil
}

func (f *object) entries() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.names)), func(name string) bool { return f.entry(name) == nil })
}

// known makes an object durably named, and with a directory what its durable names mean.
func (f *object) known() {
	if f.named {
		return
	}
	f.named = true
	for _, h := range f.names {
		if h.first != nil {
			h.first.known()
		}
	}
}

// call is a change that was asked for and has not returned.
type call struct {
	changed []interface{ done(now uint64) }
}

func ask[T any](c *call, h *history[T], val T) {
	h.ask(val)
	c.changed = append(c.changed, h)
}

// write is a write of p at off.
func (f *object) write(c *call, off int64, p []byte) {
	if end, size := off+int64(len(p)), f.size.last().size; end > size {
		ask(c, &f.size, span{size, end})
	}
	for len(p) > 0 {
		n, in := off/blockSize, off%blockSize
		b := new([blockSize]byte)
		if old := f.block(n).last(); old != nil {
			*b = *old
		}
		k := copy(b[in:], p)
		ask(c, f.block(n), b)
		p, off = p[k:], off+int64(k)
	}
}

func (f *object) truncate(c *call, size int64) {
	old := f.size.last().size
	ask(c, &f.size, span{min(old, size), size})
	if size < old {
		f.zero(c, size, old)
	}
}

// zero zeroes bytes; whole blocks may become holes.
func (f *object) zero(c *call, from, to int64) {
	for _, n := range slices.Sorted(maps.Keys(f.blocks)) {
		h, at := f.blocks[n], n*blockSize
		old := h.last()
		if old == nil || at >= to || at+blockSize <= from {
			continue
		}
		b := *old
		clear(b[max(from-at, 0):min(to-at, blockSize)])
		if b == ([blockSize]byte{}) {
			ask(c, h, nil)
		} else {
			ask(c, h, &b)
		}
	}
}

// allocate is an fallocate that may make the file longer.
func (f *object) allocate(c *call, end int64) {
	if size := f.size.last().size; end > size {
		ask(c, &f.size, span{size, end})
	}
}

// sync is an fsync of the file or directory, or an fdatasync.
func (f *object) sync(then uint64, dataOnly bool) {
	f.size.sync(then)
	f.size.first.least = f.size.first.size
	for _, h := range f.blocks {
		h.sync(then)
	}
	if !dataOnly {
		f.mode.sync(then)
		f.xattr.sync(then)
	}
	for _, h := range f.names {
		h.sync(then)
		if f.named && h.first != nil {
			h.first.known()
		}
	}
}

// syncRange is a synced write, or an msync: it makes the file at least so long, but not as long as other writes have made it.
func (f *object) syncRange(then uint64, off, n int64) {
	for b := off / blockSize; b*blockSize < off+n; b++ {
		f.block(b).sync(then)
	}
	h := &f.size
	for h.returned > 0 && h.maybes[0].done <= then && h.first.size < off+n {
		h.first, h.maybes, h.returned = h.maybes[0].val, h.maybes[1:], h.returned-1
	}
	h.first.least = max(h.first.least, min(h.first.size, off+n))
}
