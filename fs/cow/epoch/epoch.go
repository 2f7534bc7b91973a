package epoch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"graphvol/index"
	"graphvol/internal/mapped"
)

const shards = 64

// Epoch is everything that changed in one epoch. All methods may be called concurrently.
type Epoch struct {
	n       uint64
	dir     string // empty: no files
	bits    arena
	names   arena
	spare   map[uint64][]uint64 // length → offsets of records of the names that count no more; guarded by names.mu
	maps    *mapped.Memory
	headers [2]*header            // of the two files; nil: no files
	failure atomic.Pointer[error] // why not everything is in the files
	shards  [shards]shard

	abandoned struct {
		sync.Mutex
		files []*os.File // that must still be told that they aren't whole
	}

	damaged, doubtful int // records, when the files were loaded
}

// shard is a part of the inodes.
type shard struct {
	mu struct {
		sync.RWMutex
		inodes map[uint64]*Inode
	}
	_ [32]byte // keeps neighbours' locks out of one cache line
}

func newEpoch(n uint64) *Epoch {
	e := &Epoch{n: n, maps: new(mapped.Memory), spare: make(map[uint64][]uint64)}
	e.bits.maps, e.names.maps = e.maps, e.maps
	e.bits.onFail, e.names.onFail = e.fail, e.fail
	for i := range e.shards {
		e.shards[i].mu.inodes = make(map[uint64]*Inode)
	}
	runtime.AddCleanup(e, func(m *mapped.Memory) { m.UnmapAll() }, e.maps)
	return e
}

// memory returns an epoch without files.
func memory(n uint64) *Epoch {
	e := newEpoch(n)
	e.bits.mu.failed, e.names.mu.failed = true, true
	e.bits.mu.pos, e.names.mu.pos = headerLen, headerLen
	e.bits.mu.segs = [][]byte{make([]byte, firstSegment)}
	e.names.mu.segs = [][]byte{make([]byte, firstSegment)}
	return e
}

// fail notes that not everything is in the files, also in the files: what Load returns then isn't durable either.
func (e *Epoch) fail(err error) {
	e.failure.CompareAndSwap(nil, &err)
	for _, h := range e.headers {
		if h != nil {
			atomic.OrUint32(&h.flags, flagIncomplete)
		}
	}
}

// store runs fn, which makes marks. If the disk below the files fails, they are made in memory, like all that follow.
func (e *Epoch) store(fn func()) {
	if e.maps.Do(fn) {
		e.abandon()
	}
}

// errDisk says why an epoch has left its files.
var errDisk = errors.New("the disk failed below a mapped file")

// abandon ends the use of the files, after the marks have left them.
func (e *Epoch) abandon() {
	for _, a := range []*arena{&e.bits, &e.names} {
		a.mu.Lock()
		if a.mu.file != nil {
			e.abandoned.Lock()
			e.abandoned.files = append(e.abandoned.files, a.mu.file)
			e.abandoned.Unlock()
			a.mu.file = nil
		}
		a.failLocked(errDisk)
		a.mu.Unlock()
	}
	e.Confess()
}

// Lost tells whether the disk failed below the files. Marks made in that moment may be missing, so everything counts as changed.
func (e *Epoch) Lost() bool { return e.maps.Left() }

// Confess makes files that the epoch has left say that they don't have everything, if the disk takes it. It is to be tried again now and then.
func (e *Epoch) Confess() {
	e.abandoned.Lock()
	defer e.abandoned.Unlock()
	var flags [4]byte
	binary.NativeEndian.PutUint32(flags[:], flagIncomplete)
	e.abandoned.files = slices.DeleteFunc(e.abandoned.files, func(f *os.File) bool {
		_, err := f.WriteAt(flags[:], int64(unsafe.Offsetof(header{}.flags)))
		return err == nil && f.Close() == nil
	})
}

// Number returns the epoch's number.
func (e *Epoch) Number() uint64 { return e.n }

// Durable tells whether everything that is marked is in files, so that Load finds it after the process died.
func (e *Epoch) Durable() bool { return e.DurableErr() == nil }

// DurableErr tells why the epoch isn't durable; nil if it is. Once an epoch isn't durable it never is again.
func (e *Epoch) DurableErr() error {
	if err := e.failure.Load(); err != nil {
		return fmt.Errorf("epoch %d is in memory only: %w", e.n, *err)
	}
	if e.dir == "" {
		return fmt.Errorf("epoch %d is in memory only", e.n)
	}
	return nil
}

// Damaged returns how many records Load found damaged, apart from those that were being written when the
// process died. It is 0 unless the machine failed: then marks may be missing.
func (e *Epoch) Damaged() int { return e.damaged }

// Doubtful tells in how many records marks didn't match their checksum when the files were loaded. What such a record is about counts as dirty.
func (e *Epoch) Doubtful() int { return e.doubtful }

func (e *Epoch) shard(ino uint64) *shard {
	return &e.shards[ino*0x9e3779b97f4a7c15>>(64-6)]
}

// Find returns the marks of an inode, nil if it has none.
func (e *Epoch) Find(ino uint64) *Inode {
	s := e.shard(ino)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.inodes[ino]
}

// Inode returns the marks of an inode, and makes them if there are none. gen 0 means unknown. If the epoch knows
// the number with another gen, it has been used again: it gets the new gen, is marked Fresh, and isn't removed any more.
// The pointer stays good for as long as the caller keeps it; it keeps the whole epoch in memory.
func (e *Epoch) Inode(ino, gen uint64) *Inode {
	if i := e.Find(ino); i != nil && (gen == 0 || i.Gen() == gen) {
		return i
	}
	var i *Inode
	e.store(func() { i = e.reuse(ino, gen) })
	return i
}

// reuse is Inode, when something is to be stored.
func (e *Epoch) reuse(ino, gen uint64) *Inode {
	i := e.inode(ino, gen)
	if gen == 0 {
		return i
	}
	for old := i.Gen(); old != gen; old = i.Gen() {
		if !atomic.CompareAndSwapUint64(&i.rec.gen, old, gen) {
			continue
		}
		atomic.AddUint32(&i.rec.headSum, headWeight(0, gen)-headWeight(0, old))
		if old != 0 {
			i.set(index.DirtyFresh)
			i.clear(index.DirtyRemoved)
			i.setIdent(index.Ident{})
		}
	}
	return i
}

// inode is Inode without the look at the gen of one that is there.
func (e *Epoch) inode(ino, gen uint64) *Inode {
	if i := e.Find(ino); i != nil {
		return i
	}
	s := e.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.mu.inodes[ino]
	if i == nil {
		i = &Inode{e: e, rec: e.newInodeRec(ino, gen)}
		s.mu.inodes[ino] = i
	}
	return i
}

// newInodeRec adds the record of an inode.
func (e *Epoch) newInodeRec(ino, gen uint64) *inodeRec {
	e.bits.mu.Lock()
	defer e.bits.mu.Unlock()
	p, _ := e.bits.allocLocked(cell)
	r := (*inodeRec)(p)
	r.ino, r.gen, r.sum, r.headSum = ino, gen, sum(uint64(kindInode), ino), headWeight(0, gen)
	atomic.StoreUint32(&r.state, uint32(kindInode))
	return r
}

// newSlot adds a bitmap.
func (e *Epoch) newSlot(ino, no uint64) *slotRec {
	e.bits.mu.Lock()
	defer e.bits.mu.Unlock()
	p, _ := e.bits.allocLocked(slotCells * cell)
	r := (*slotRec)(p)
	r.ino, r.slot, r.sum = ino, no, sum(uint64(kindSlot), ino, no)
	atomic.StoreUint32(&r.state, uint32(kindSlot))
	return r
}

// addRun adds the record of a run of full slots.
func (e *Epoch) addRun(ino uint64, x run) {
	e.bits.mu.Lock()
	defer e.bits.mu.Unlock()
	p, _ := e.bits.allocLocked(cell)
	r := (*runRec)(p)
	r.ino, r.first, r.n, r.sum = ino, x.first, x.n, sum(uint64(kindRun), ino, x.first, x.n)
	atomic.StoreUint32(&r.state, uint32(kindRun))
}

// addName adds a record to the names and returns its offset.
func (e *Epoch) addName(k kind, ino, parent uint64, name string) uint64 {
	e.names.mu.Lock()
	defer e.names.mu.Unlock()
	n := nameSize(len(name))
	var p unsafe.Pointer
	var off uint64
	if s := e.spare[n]; len(s) > 0 {
		off, e.spare[n] = s[len(s)-1], s[:len(s)-1]
		p = unsafe.Pointer(&e.names.atLocked(off, n)[0])
	} else {
		p, off = e.names.allocLocked(n)
	}
	r := unsafe.Slice((*byte)(p), n)
	atomic.StoreUint32((*uint32)(p), uint32(kindUnfinished)<<16|uint32(len(name)))
	clear(r[nameHead:])
	copy(r[nameHead:], name)
	writeNameHead(p, k, ino, parent, r[nameHead:nameHead+len(name)])
	return off
}

// dropName makes room of a record of the names that nobody reads any more: a hint is replaced each time when a file is renamed, or when
// another one gets its number.
func (e *Epoch) dropName(off uint64, name int) {
	e.names.mu.Lock()
	defer e.names.mu.Unlock()
	n := nameSize(name)
	if r := e.names.atLocked(off, n); r != nil {
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&r[0])), uint32(kindUnfinished)<<16|uint32(name))
		e.spare[n] = append(e.spare[n], off)
	}
}

// Len returns the number of inodes that Inode was called for.
func (e *Epoch) Len() int {
	n := 0
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.RLock()
		n += len(s.mu.inodes)
		s.mu.RUnlock()
	}
	return n
}

// All yields the inodes in ascending order, those without any mark too.
func (e *Epoch) All(yield func(*Inode) bool) {
	all := make([]*Inode, 0, e.Len())
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.RLock()
		for _, in := range s.mu.inodes {
			all = append(all, in)
		}
		s.mu.RUnlock()
	}
	slices.SortFunc(all, func(a, b *Inode) int { return cmp.Compare(a.Ino(), b.Ino()) })
	for _, in := range all {
		if !yield(in) {
			return
		}
	}
}

// Close ends the use of the files; they stay, for Load. The marks can still be read. New ones may be lost, which
// the files then say.
func (e *Epoch) Close() error {
	var err error
	for _, a := range []*arena{&e.bits, &e.names} {
		a.mu.Lock()
		if a.mu.file != nil {
			err = errors.Join(err, a.mu.file.Close())
			a.mu.file = nil
		}
		a.mu.Unlock()
	}
	e.Confess()
	e.abandoned.Lock()
	defer e.abandoned.Unlock()
	for _, f := range e.abandoned.files {
		err = errors.Join(err, f.Close())
	}
	e.abandoned.files = nil
	return err
}

// Remove closes the epoch and removes its files. All marks are gone then, also for those who still have pointers to them.
func (e *Epoch) Remove() error {
	err := e.Close()
	if e.dir != "" {
		err = errors.Join(err, Delete(e.dir, e.n), e.maps.Release())
	}
	if err != nil {
		return fmt.Errorf("removing epoch %d: %w", e.n, err)
	}
	return nil
}
