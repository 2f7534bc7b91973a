package epoch

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"graphvol/index"
)

// Load opens the files of an epoch, and goes on with it: all that was marked is marked, also what a process marked
// in the moment in which it was killed. If the files say that they don't have everything, Durable is false. Errors:
// fs.ErrNotExist, ErrNewerFormat, ErrCorrupt, and those of the filesystem.
func Load(dir string, n uint64) (*Epoch, error) {
	e := newEpoch(n)
	e.dir = dir
	if err := e.load(); err != nil {
		e.Close()
		return nil, fmt.Errorf("loading epoch %d: %w", n, err)
	}
	return e, nil
}

func (e *Epoch) load() (err error) {
	if err := e.openFile(&e.bits, bitsPath(e.dir, e.n), fileBits); err != nil {
		return err
	}
	if err := e.openFile(&e.names, namesPath(e.dir, e.n), fileNames); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &CorruptError{namesPath(e.dir, e.n), "missing"}
		}
		return err
	}
	// A bad sector under a mapping comes as a memory fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(interface{ Addr() uintptr })
			if !ok {
				panic(p)
			}
			err = &CorruptError{bitsPath(e.dir, e.n), fmt.Sprintf("cannot be read at address %#x", fault.Addr())}
		}
	}()
	for _, h := range e.headers {
		if atomic.LoadUint32(&h.flags)&flagIncomplete != 0 {
			e.fail(errors.New("the process that began it could not store all marks"))
		}
	}
	e.loadBits()
	e.loadNames()
	return nil
}

// found is what loadBits found before it can build inodes, which may need new records behind those found.
type found struct {
	inodes []*inodeRec
	slots  []*slotRec
	runs   []*runRec
}

func (e *Epoch) loadBits() {
	var all found
	for k := range e.bits.mu.segs {
		e.scanBits(k, &all)
	}
	sums := atomic.LoadUint32(&e.headers[fileBits-1].flags)&flagSums != 0
	for _, r := range all.inodes {
		if sums && r.mend() {
			e.doubtful++
		}
		e.loadInode(r)
	}
	for _, s := range all.slots {
		if sums && s.mend() {
			e.doubtful++
		}
		i := e.loaded(s.ino)
		i.mu.Lock()
		if old := i.table.Load().find(s.slot); old != nil { // never written twice, so damaged; lose nothing
			for w := range s.bits {
				orWord(&old.bits[w], &old.bitsSum, uint64(w), s.bits[w])
			}
			e.damaged++
		} else {
			i.addSlotLocked(s)
		}
		i.mu.Unlock()
	}
	for _, r := range all.runs {
		i := e.loaded(r.ino)
		i.mu.Lock()
		i.addRunLocked(run{r.first, r.n})
		i.mu.Unlock()
	}
}

// scanBits collects the whole records of segment k, and lets the arena go on behind the last one.
func (e *Epoch) scanBits(k int, all *found) {
	seg := e.bits.mu.segs[k]
	off := 0
	if k == 0 {
		off = headerLen
	}
	e.bits.mu.pos = segmentStart(k) + uint64(off)
	for off+cell <= len(seg) {
		n := e.scanRecord(unsafe.Pointer(&seg[off]), len(seg)-off, all)
		if n > 0 {
			e.bits.mu.pos = segmentStart(k) + uint64(off+n)
		}
		off += max(n, cell)
	}
}

// scanRecord looks at one record, with left bytes from there on. It returns its length, 0 for a free cell.
func (e *Epoch) scanRecord(p unsafe.Pointer, left int, all *found) int {
	switch k := kind(*(*uint32)(p)); k {
	case kindInode:
		if r := (*inodeRec)(p); r.sum == r.wantSum() {
			all.inodes = append(all.inodes, r)
			return cell
		}
	case kindSlot:
		if left < slotCells*cell {
			break
		}
		if r := (*slotRec)(p); r.sum == r.wantSum() && r.slot < maxSlots {
			all.slots = append(all.slots, r)
			return slotCells * cell
		}
	case kindRun:
		if r := (*runRec)(p); r.sum == r.wantSum() && r.n > 0 && r.first < maxSlots && r.n <= maxSlots-r.first {
			all.runs = append(all.runs, r)
			return cell
		}
	case 0:
		// Free, or the record that was being made when the process died: then nothing of it but its head is written.
		if isZero(unsafe.Slice((*byte)(p), cell)) {
			return 0
		}
		if isZero(unsafe.Slice((*byte)(unsafe.Add(p, 32)), cell-32)) {
			return cell
		}
	}
	e.damaged++
	return cell
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// loadInode enters an inode.
func (e *Epoch) loadInode(r *inodeRec) {
	if r.identSum != 0 && r.identSum != r.wantIdentSum() {
		r.identSum = 0
	}
	r.hint = 0 // found again in the names
	s := e.shard(r.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.mu.inodes[r.ino]
	if i == nil {
		s.mu.inodes[r.ino] = &Inode{e: e, rec: r}
		return
	}
	e.damaged++ // never written twice; lose nothing
	orWord(&i.rec.bits, &i.rec.bitsSum, 0, r.bits)
	i.set(index.DirtyFlags(r.flags))
}

// loaded returns the inode of a record. Its record comes first, so if that isn't there, it is damaged.
func (e *Epoch) loaded(ino uint64) *Inode {
	i := e.Find(ino)
	if i == nil {
		e.damaged++
		i = e.inode(ino, 0)
	}
	return i
}

func (e *Epoch) loadNames() {
	a := &e.names
	for k, seg := range a.mu.segs {
		off := 0
		if k == 0 {
			off = headerLen
		}
		a.mu.pos = segmentStart(k) + uint64(off)
		for off+nameHead <= len(seg) {
			n := e.loadName(seg[off:], segmentStart(k)+uint64(off))
			if n > 0 {
				a.mu.pos = segmentStart(k) + uint64(off+n)
			}
			off += max(n, nameAlign)
		}
	}
}

// loadName enters the record at the beginning of p. It returns its length, 0 where nothing is written.
func (e *Epoch) loadName(p []byte, off uint64) int {
	head := unsafe.Pointer(&p[0])
	k, length, ino, parent := readNameHead(head)
	if k == 0 && length == 0 {
		if isZero(p[:nameAlign]) {
			return 0
		}
		e.damaged++
		return nameAlign
	}
	n := int(nameSize(int(length)))
	if k == kindUnfinished && n <= len(p) {
		return n
	}
	if k < kindName || k > kindHint || n > len(p) ||
		sumBytes(*(*uint32)(head), ino, parent, p[nameHead:nameHead+length]) != *(*uint32)(unsafe.Add(head, 4)) {
		e.damaged++
		return nameAlign
	}
	i := e.loaded(ino)
	i.mu.Lock()
	defer i.mu.Unlock()
	if k == kindHint {
		i.rec.hint = off
	} else {
		i.addNameLocked(string(p[nameHead : nameHead+length]))
	}
	return n
}
