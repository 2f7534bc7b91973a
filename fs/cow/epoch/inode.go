package epoch

import (
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"graphvol/index"
)

// Pseudo regions for IntentNeeded and IntentDone. Others are numbers of 64 MiB pieces of a file.
const (
	RegionAttr  uint32 = math.MaxUint32     // the inode's attributes
	RegionNames uint32 = math.MaxUint32 - 1 // the directory's names
	RegionAll   uint32 = math.MaxUint32 - 2 // all pieces of the file
)

// Inode is what changed of one inode. All methods may be called concurrently.
//
// Marks are of two sorts. Own marks are made by the Mark methods: their first change went through the caller's
// slow path. Merged ones came by Epoch.Merge, without that. The Has methods and Blocks see own marks
// only; Dirty, DirtyName, Flags, Names, DirtyRuns and Count see both.
type Inode struct {
	e       *Epoch
	own     marks
	more    atomic.Pointer[more]
	mu      sync.Mutex    // guards what grows: names, hint, ident, regions, slots; Inode comes before arena
	intents atomic.Uint32 // bits: see intentBit
}

// more is what most inodes don't need.
type more struct {
	merged  atomic.Pointer[marks]
	names   map[string]nameSort // guarded by Inode.mu
	regions map[uint32]struct{} // guarded by Inode.mu
}

type nameSort uint8

const (
	nameOwn nameSort = 1 << iota
	nameMerged
)

// moreLocked returns what most inodes don't need.
func (i *Inode) moreLocked() *more {
	m := i.more.Load()
	if m == nil {
		m = new(more)
		i.more.Store(m)
	}
	return m
}

// merged returns the merged marks, nil if there are none.
func (i *Inode) merged() *marks {
	if m := i.more.Load(); m != nil {
		return m.merged.Load()
	}
	return nil
}

// mergedLocked is merged, and makes them.
func (i *Inode) mergedLocked() *marks {
	m := i.moreLocked()
	if m.merged.Load() == nil {
		m.merged.Store(&marks{rec: i.e.newInodeRec(kindMergedInode, i.Ino(), i.Gen())})
	}
	return m.merged.Load()
}

// Ino returns the inode's number.
func (i *Inode) Ino() uint64 { return i.own.rec.ino }

// Gen returns what tells the inode from others of its number, 0 if that is unknown.
func (i *Inode) Gen() uint64 { return atomic.LoadUint64(&i.own.rec.gen) }

// set sets own flags and tells whether one of them is new.
func (i *Inode) set(f index.DirtyFlags) bool {
	p := &i.own.rec.flags
	if atomic.LoadUint32(p)&uint32(f) == uint32(f) {
		return false
	}
	return atomic.OrUint32(p, uint32(f))&uint32(f) != uint32(f)
}

func (i *Inode) has(f index.DirtyFlags) bool {
	return atomic.LoadUint32(&i.own.rec.flags)&uint32(f) != 0
}

// MarkAttr marks attributes and xattrs. It returns true the first time.
func (i *Inode) MarkAttr() (first bool) { return i.set(index.DirtyAttr) }

// MarkContent marks every block, without making Blocks true. It returns true the first time.
func (i *Inode) MarkContent() (first bool) { return i.set(index.DirtyContent) }

// MarkFresh marks the inode as new. It returns true the first time.
func (i *Inode) MarkFresh() (first bool) { return i.set(index.DirtyFresh) }

// MarkRemoved notes that the last link went. It returns true the first time.
func (i *Inode) MarkRemoved() (first bool) { return i.set(index.DirtyRemoved) }

// MarkAllNames marks every name of a directory, without making HasName true. It returns true the first time.
func (i *Inode) MarkAllNames() (first bool) { return i.set(index.DirtyNames) }

// HasAttr tells whether MarkAttr was called.
func (i *Inode) HasAttr() bool { return i.has(index.DirtyAttr) }

// HasContent tells whether MarkContent was called.
func (i *Inode) HasContent() bool { return i.has(index.DirtyContent) }

// HasFresh tells whether MarkFresh was called.
func (i *Inode) HasFresh() bool { return i.has(index.DirtyFresh) }

// HasRemoved tells whether MarkRemoved was called.
func (i *Inode) HasRemoved() bool { return i.has(index.DirtyRemoved) }

// HasAllNames tells whether MarkAllNames was called.
func (i *Inode) HasAllNames() bool { return i.has(index.DirtyNames) }

// Flags returns all flags, own and merged.
func (i *Inode) Flags() index.DirtyFlags {
	f := atomic.LoadUint32(&i.own.rec.flags)
	if m := i.merged(); m != nil {
		f |= atomic.LoadUint32(&m.rec.flags)
	}
	return index.DirtyFlags(f)
}

// MarkName marks a name of a directory. It returns true the first time.
func (i *Inode) MarkName(name string) (first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.markNameLocked(name, nameOwn)
}

func (i *Inode) markNameLocked(name string, sort nameSort) (first bool) {
	m := i.moreLocked()
	if m.names[name]&sort != 0 {
		return false
	}
	if m.names == nil {
		m.names = make(map[string]nameSort)
	}
	k := kindName
	if sort == nameMerged {
		k = kindMergedName
	}
	switch {
	case len(name) <= maxNameLen:
		i.e.addName(k, i.Ino(), 0, name)
	case sort == nameOwn:
		i.set(index.DirtyNames) // no filesystem has such names; be right all the same
	default:
		atomic.OrUint32(&i.mergedLocked().rec.flags, uint32(index.DirtyNames))
	}
	m.names[name] |= sort
	return true
}

// nameSort tells how a name is marked.
func (i *Inode) nameSort(name string) nameSort {
	m := i.more.Load()
	if m == nil {
		return 0
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return m.names[name]
}

// HasName tells whether MarkName was called for that name.
func (i *Inode) HasName(name string) bool { return i.nameSort(name)&nameOwn != 0 }

// DirtyName tells whether a name may have changed: it is marked, or all are.
func (i *Inode) DirtyName(name string) bool {
	return i.Flags()&(index.DirtyNames|index.DirtyFresh) != 0 || i.nameSort(name) != 0
}

// Names returns the marked names in ascending order.
func (i *Inode) Names() []string {
	m := i.more.Load()
	if m == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(m.names) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m.names))
}

// SetHint notes where the inode was seen last: a directory and a name there. It is cheap if that is known.
func (i *Inode) SetHint(parent uint64, name string) {
	if len(name) > maxNameLen {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if p, n := i.hintLocked(); p == parent && n == name {
		return
	}
	i.own.rec.hint = i.e.addName(kindHint, i.Ino(), parent, name)
}

// Hint returns what SetHint noted; 0 and "" if nothing.
func (i *Inode) Hint() (parent uint64, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hintLocked()
}

// hintLocked returns a name that is valid only until the epoch is removed if it isn't copied.
func (i *Inode) hintLocked() (parent uint64, name string) {
	off := i.own.rec.hint
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
func (i *Inode) SetIdent(id index.Ident) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.own.rec
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
	r := i.own.rec
	if r.identSum == 0 {
		return index.Ident{}
	}
	return index.Ident{
		Valid: true, Gen: r.identGen, Size: r.size,
		CtimeSec: r.ctime, CtimeNsec: r.ctimeNS, BtimeSec: r.btime, BtimeNsec: r.btimeNS,
	}
}

// intentBit gives the usual regions a bit in Inode.intents.
func intentBit(region uint32) (bit uint32, ok bool) {
	switch {
	case region < 16:
		return 1 << region, true
	case region >= RegionAll:
		return 1 << 16 << (region - RegionAll), true
	}
	return 0, false
}

// IntentNeeded tells whether the intent of changing a region is still to be recorded. What was recorded is known to this
// object alone: after Load nothing is.
func (i *Inode) IntentNeeded(region uint32) bool {
	if bit, ok := intentBit(region); ok {
		return i.intents.Load()&bit == 0
	}
	m := i.more.Load()
	if m == nil {
		return true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := m.regions[region]
	return !ok
}

// IntentDone notes that the intent of changing a region is durable.
func (i *Inode) IntentDone(region uint32) {
	if bit, ok := intentBit(region); ok {
		i.intents.Or(bit)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.moreLocked()
	if m.regions == nil {
		m.regions = make(map[uint32]struct{})
	}
	m.regions[region] = struct{}{}
}
