package epoch

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"graphvol/index"
)

// Inode is what changed of one inode. All methods may be called concurrently.
type Inode struct {
	e     *Epoch
	rec   *inodeRec
	table atomic.Pointer[table] // nil while no block beyond the first 64 is marked; replaced under mu
	mu    sync.Mutex            // guards what grows: names, hint, ident, slots; Inode comes before arena
	names map[string]struct{}   // guarded by mu
}

// Ino returns the inode's number.
func (i *Inode) Ino() uint64 { return i.rec.ino }

// Gen returns what tells the inode from others of its number, 0 if that is unknown.
func (i *Inode) Gen() uint64 { return atomic.LoadUint64(&i.rec.gen) }

// flag is set, whatever the disk does.
func (i *Inode) flag(f index.DirtyFlags) (first bool) {
	if i.Flags()&f == f {
		return false
	}
	i.e.store(func() { first = i.set(f) })
	return first
}

// set sets flags and tells whether one of them is new.
func (i *Inode) set(f index.DirtyFlags) bool {
	p := &i.rec.flags
	if atomic.LoadUint32(p)&uint32(f) == uint32(f) {
		return false
	}
	added := uint32(f) &^ atomic.OrUint32(p, uint32(f))
	atomic.AddUint32(&i.rec.headSum, headWeight(added, 0))
	return added != 0
}

func (i *Inode) clear(f index.DirtyFlags) {
	removed := uint32(f) & atomic.AndUint32(&i.rec.flags, ^uint32(f))
	atomic.AddUint32(&i.rec.headSum, -headWeight(removed, 0))
}

func (i *Inode) has(f index.DirtyFlags) bool {
	return atomic.LoadUint32(&i.rec.flags)&uint32(f) != 0
}

// MarkAttr marks attributes and xattrs. It returns true the first time.
func (i *Inode) MarkAttr() (first bool) { return i.flag(index.DirtyAttr) }

// MarkContent marks every block, without making Blocks true. It returns true the first time.
func (i *Inode) MarkContent() (first bool) { return i.flag(index.DirtyContent) }

// MarkFresh marks the inode as new, and so as not removed: that was another of its number. It returns true the first time.
func (i *Inode) MarkFresh() (first bool) {
	if i.has(index.DirtyFresh) && !i.has(index.DirtyRemoved) {
		return false
	}
	i.e.store(func() {
		first = i.set(index.DirtyFresh)
		i.clear(index.DirtyRemoved)
	})
	return first
}

// MarkRemoved notes that the last link went. It returns true the first time.
func (i *Inode) MarkRemoved() (first bool) { return i.flag(index.DirtyRemoved) }

// MarkAllNames marks every name of a directory, without making HasName true. It returns true the first time.
func (i *Inode) MarkAllNames() (first bool) { return i.flag(index.DirtyNames) }

// HasContent tells whether MarkContent was called.
func (i *Inode) HasContent() bool { return i.has(index.DirtyContent) }

// HasFresh tells whether MarkFresh was called.
func (i *Inode) HasFresh() bool { return i.has(index.DirtyFresh) }

// HasRemoved tells whether MarkRemoved was called.
func (i *Inode) HasRemoved() bool { return i.has(index.DirtyRemoved) }

// HasAllNames tells whether MarkAllNames was called.
func (i *Inode) HasAllNames() bool { return i.has(index.DirtyNames) }

// Flags returns all flags.
func (i *Inode) Flags() index.DirtyFlags { return index.DirtyFlags(atomic.LoadUint32(&i.rec.flags)) }

// maxNames is how many names of a directory are remembered, in about 25 MiB of memory and 12 MiB of the file. To list the directory is
// little work then, compared with sealing them one by one, and an epoch may last for months.
const maxNames = 1 << 18

// MarkName marks a name of a directory. It returns true the first time. When there are too many, all names of the directory are marked,
// and HasName stays false for those that come later.
func (i *Inode) MarkName(name string) (first bool) {
	if i.HasName(name) {
		return false
	}
	i.e.store(func() { first = i.markName(name) })
	return first
}

func (i *Inode) markName(name string) (first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.names[name]; ok {
		return false
	}
	if len(i.names) >= maxNames {
		return i.set(index.DirtyNames)
	}
	if len(name) <= maxNameLen {
		i.e.addName(kindName, i.Ino(), 0, name)
	} else {
		i.set(index.DirtyNames) // no filesystem has such names; be right all the same
	}
	i.addNameLocked(name)
	return true
}

func (i *Inode) addNameLocked(name string) {
	if i.names == nil {
		i.names = make(map[string]struct{})
	}
	i.names[name] = struct{}{}
}

// HasName tells whether MarkName was called for that name.
func (i *Inode) HasName(name string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.names[name]
	return ok
}

// DirtyName tells whether a name may have changed: it is marked, or all are.
func (i *Inode) DirtyName(name string) bool {
	return i.Flags()&(index.DirtyNames|index.DirtyFresh) != 0 || i.HasName(name)
}

// Names returns the marked names in ascending order.
func (i *Inode) Names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.names) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(i.names))
}

// SetHint notes where the inode was seen last: a directory and a name there. It is cheap if that is known.
func (i *Inode) SetHint(parent uint64, name string) {
	if len(name) <= maxNameLen {
		i.e.store(func() { i.setHint(parent, name) })
	}
}

func (i *Inode) setHint(parent uint64, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, n := i.hintLocked()
	if p == parent && n == name {
		return
	}
	old := i.rec.hint
	i.rec.hint = i.e.addName(kindHint, i.Ino(), parent, name)
	if old != 0 {
		i.e.dropName(old, len(n))
	}
}

// Hint returns what SetHint noted; 0 and "" if nothing.
func (i *Inode) Hint() (parent uint64, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hintLocked()
}

// hintLocked returns a name that is valid only until the epoch is removed if it isn't copied.
func (i *Inode) hintLocked() (parent uint64, name string) {
	off := i.rec.hint
	if off == 0 {
		return 0, ""
	}
	head := i.e.names.at(off, nameHead)
	if head == nil {
		return 0, ""
	}
	_, n, _, parent := readNameHead(unsafe.Pointer(&head[0]))
	return parent, string(i.e.names.at(off+nameHead, n))
}

// SetIdent replaces the ident. A process that dies in the middle leaves none. It needs no system call.
func (i *Inode) SetIdent(id index.Ident) { i.e.store(func() { i.setIdent(id) }) }

func (i *Inode) setIdent(id index.Ident) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.rec
	atomic.StoreUint32(&r.identSum, 0)
	if !id.Valid {
		return
	}
	r.identGen, r.size = id.Gen, id.Size
	r.ctime, r.ctimeNS, r.btime, r.btimeNS = id.CtimeSec, id.CtimeNsec, id.BtimeSec, id.BtimeNsec
	atomic.StoreUint32(&r.identSum, r.wantIdentSum())
}

// Ident returns the ident set last, an invalid one if there is none.
func (i *Inode) Ident() index.Ident {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.rec
	if r.identSum == 0 {
		return index.Ident{}
	}
	return index.Ident{
		Valid: true, Gen: r.identGen, Size: r.size,
		CtimeSec: r.ctime, CtimeNsec: r.ctimeNS, BtimeSec: r.btime, BtimeNsec: r.btimeNS,
	}
}
