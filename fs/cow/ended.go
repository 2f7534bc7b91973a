package cow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"graphvol/fs/cow/epoch"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

var (
	_ snapshot.Source = (*Ended)(nil)
	_ snapshot.Live   = (*Volume)(nil)
)

// Ended is an ended epoch: the volume as of a barrier, until it is released. It reads what is live and what was saved before
// it changed.
type Ended struct {
	v      *Volume
	number uint64
	full   atomic.Bool
	parts  atomic.Pointer[[]*part] // this epoch's, and those of lost snapshots before it; ascending
	err    atomic.Pointer[error]
	id     atomic.Pointer[string]

	done struct {
		sync.RWMutex
		inos roaring64.Bitmap
	}

	places struct {
		sync.Mutex
		m     map[uint64]place // where Entries and the search have seen inodes
		sizes map[uint64]int64 // files' sizes as of the barrier
		walks int              // how often the volume was walked
	}

	searching sync.Mutex // held for a whole search; before places

	once sync.Once // of Release
}

// SetID tells which snapshot this epoch becomes, so that Release(true) makes it the one that ReadClean answers for.
func (e *Ended) SetID(snapshotID string) { e.id.Store(&snapshotID) }

// Epoch is the number of the ended epoch.
func (e *Ended) Epoch() uint64 { return e.number }

// Root is the inode number of the volume's root.
func (e *Ended) Root() uint64 { return e.v.tree.Root() }

// Full says that everything may differ from the parent.
func (e *Ended) Full() bool { return e.full.Load() }

// Err says why the snapshot can't become complete any more; nil while it can.
func (e *Ended) Err() error {
	if p := e.err.Load(); p != nil {
		return *p
	}
	return nil
}

func (e *Ended) fail(err error) (first bool) { return e.err.CompareAndSwap(nil, &err) }

func (e *Ended) isDone(ino uint64) bool {
	e.done.RLock()
	defer e.done.RUnlock()
	return e.done.inos.Contains(ino)
}

// Done says that nothing of an inode will be read any more.
func (e *Ended) Done(ino uint64) {
	e.done.Lock()
	e.done.inos.Add(ino)
	e.done.Unlock()
	e.places.Lock()
	delete(e.places.sizes, ino)
	if !e.places.m[ino].dir {
		delete(e.places.m, ino)
	}
	e.places.Unlock()
	if e.v.heldFile(ino) != nil {
		e.v.dropHeld(ino)
	}
}

// Release ends the use of e. sealed: its changes are in a complete snapshot. Else they become part of the next epoch's, the
// oldest unsealed or the running one. Only the first call counts.
func (e *Ended) Release(sealed bool) { e.once.Do(func() { e.v.release(e, sealed) }) }

func (v *Volume) release(e *Ended, sealed bool) {
	e.fail(ErrReleased)
	v.mu.Lock()
	if sealed {
		v.base.Store(e.id.Load())
	} else {
		v.passOnLocked(e)
	}
	list := *v.unsealed.Load()
	var rest []*Ended
	for _, x := range list {
		if x != e {
			rest = append(rest, x)
		}
	}
	v.unsealed.Store(&rest)
	v.mu.Unlock()

	r := v.run.Load()
	first := r.number // preimages labelled below the oldest unsealed epoch are needless
	if len(rest) > 0 {
		first = rest[0].number
	}
	v.images.drop(first, r.label())
	for _, ino := range v.heldInodes() {
		v.dropHeld(ino)
	}
	if sealed {
		v.forget(e)
	}
}

// passOnLocked gives e's changes to the next unsealed snapshot, or to the running epoch.
func (v *Volume) passOnLocked(e *Ended) {
	mine := *e.parts.Load()
	for _, x := range *v.unsealed.Load() {
		if x.number > e.number {
			all := append(mine[:len(mine):len(mine)], *x.parts.Load()...)
			x.parts.Store(&all)
			if e.Full() {
				x.full.Store(true)
			}
			return
		}
	}
	v.setCarriedLocked(append(mine[:len(mine):len(mine)], v.mu.carried...))
	v.mu.full = v.mu.full || e.Full()
}

// Inode gives attributes, xattrs and link target as of the barrier; fs.ErrNotExist if there was no such inode then.
func (e *Ended) Inode(ctx context.Context, ino uint64) (tree.Inode, error) {
	if err := e.Err(); err != nil {
		return tree.Inode{}, err
	}
	v := e.v
	t, label, gone := v.images.attr(e.number, ino)
	if t == nil && !gone.saved() {
		live, err := e.liveInode(ctx, ino)
		if t, label, gone = v.images.attr(e.number, ino); t == nil && !gone.saved() {
			if err != nil {
				return tree.Inode{}, err
			}
			t, label = live, math.MaxUint64
		}
	}
	if err := e.Err(); err != nil {
		return tree.Inode{}, err
	}
	if t == nil || t.Nlink == 0 || e.laterMade(ino, t.Gen, label) {
		return tree.Inode{}, fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return *t, nil
}

// liveInode describes an inode as it is; fs.ErrNotExist if it is gone.
func (e *Ended) liveInode(ctx context.Context, ino uint64) (t *tree.Inode, err error) {
	err = e.located(ctx, ino, func() error {
		a, err := e.v.tree.Stat(ino)
		if err == nil {
			t, err = e.v.describe(a)
		}
		return err
	})
	if err != nil {
		return nil, notExist(err)
	}
	return t, nil
}

// laterMade tells whether an inode, as it was when the epoch label had ended, was made after this barrier, on a number that
// was free then. (What was there at the barrier and is marked fresh because it got a name again has a preimage with a
// smaller label.)
func (e *Ended) laterMade(ino, gen, label uint64) bool {
	// With a full snapshot the marks needn't know every inode, and what has a name was there.
	parts := *e.parts.Load()
	for i := len(parts) - 1; i >= 0 && !e.Full(); i-- {
		if in := parts[i].ep.Find(ino); marked(in) {
			if in.Gen() != gen && in.Gen() != 0 && gen != 0 {
				return true
			}
			break
		}
	}
	for _, ep := range e.laterEpochs() {
		if in := ep.Find(ino); in != nil && in.HasFresh() && ep.Number() <= label {
			return true
		}
	}
	return false
}

// laterEpochs lists the epochs after this barrier, the running one included.
func (e *Ended) laterEpochs() (eps []*epoch.Epoch) {
	run := e.v.run.Load() // before the lists: see since
	for _, x := range *e.v.unsealed.Load() {
		if x.number > e.number {
			for _, p := range *x.parts.Load() {
				if p.ep.Number() > e.number {
					eps = append(eps, p.ep)
				}
			}
		}
	}
	for _, p := range *e.v.carried.Load() {
		if p.ep.Number() > e.number {
			eps = append(eps, p.ep)
		}
	}
	return append(eps, run.ep)
}

// Entry tells what a name meant at the barrier.
func (e *Ended) Entry(ctx context.Context, dir uint64, name string) (tree.Dirent, bool, error) {
	v := e.v
	img, saved, gone := v.images.name(e.number, dir, name)
	if !saved && !gone.saved() {
		var a Attr
		err := e.locatedDir(ctx, dir, func() (err error) { a, err = v.tree.StatName(dir, name); return err })
		img2, saved2, gone2 := v.images.name(e.number, dir, name)
		switch {
		case saved2 || gone2.saved():
			img = img2
		case err == nil:
			img = nameImage{a.Ino, uint8(a.Mode >> 12)}
		case errors.Is(err, errNotFound), !errors.Is(notExist(err), fs.ErrNotExist):
			return tree.Dirent{}, false, fmt.Errorf("directory %d: %w", dir, err) // else its name would look as if it had gone
		}
	}
	if err := e.Err(); err != nil {
		return tree.Dirent{}, false, err
	}
	e.seen(img.ino, place{dir, name, img.typ == syscall.S_IFDIR>>12})
	return tree.Dirent{Name: name, Ino: img.ino, Type: img.typ}, img.ino != 0, nil
}

// Entries gives all names of a directory at the barrier.
func (e *Ended) Entries(ctx context.Context, dir uint64) ([]tree.Dirent, error) {
	v := e.v
	var live []Dirent
	saved, gone := v.images.names(e.number, dir)
	if !gone {
		err := e.locatedDir(ctx, dir, func() (err error) { live, err = v.tree.ReadDir(dir); return err })
		// A directory that went since has all its names saved. One that can't be found though it didn't go must not look empty.
		if saved, gone = v.images.names(e.number, dir); gone {
			live = nil
		} else if err != nil {
			return nil, fmt.Errorf("directory %d: %w", dir, notExist(err))
		}
	}
	var out []tree.Dirent
	for _, d := range live {
		if _, changed := saved[d.Name]; changed || d.Name == "." || d.Name == ".." {
			continue
		}
		typ := uint8(d.Type >> 12)
		if typ == 0 {
			one, ok, err := e.Entry(ctx, dir, d.Name)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			typ, d.Ino = one.Type, one.Ino
		}
		out = append(out, tree.Dirent{Name: d.Name, Ino: d.Ino, Type: typ})
	}
	for name, img := range saved {
		if img.ino != 0 {
			out = append(out, tree.Dirent{Name: name, Ino: img.ino, Type: img.typ})
		}
	}
	for _, d := range out {
		e.seen(d.Ino, place{dir, d.Name, d.Type == syscall.S_IFDIR>>12})
	}
	return out, e.Err()
}

// notExist turns the errors that say that an inode is gone into fs.ErrNotExist.
func notExist(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESTALE) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// NextData gives the first range at or after off that held data at the barrier.
func (e *Ended) NextData(ctx context.Context, ino uint64, off int64) (start, end int64, err error) {
	size, err := e.size(ctx, ino)
	if err != nil {
		return 0, 0, err
	}
	for off < size {
		start, end, err = e.nextRange(ctx, ino, off, size)
		if err == nil {
			err = e.Err()
		}
		if err != nil {
			return 0, 0, err
		}
		if start < end {
			return start, end, nil
		}
		off = end
	}
	return 0, 0, io.EOF
}

// nextRange is one step of NextData: a range of data at or after off, or an empty one that ends where to look next.
func (e *Ended) nextRange(ctx context.Context, ino uint64, off, size int64) (start, end int64, err error) {
	// Live first: what is written, punched or cut off between the two looks has a preimage by then.
	start, end = size, size
	if _, _, gone := e.v.images.attr(e.number, ino); !gone.saved() {
		s, t, err := e.liveData(ctx, ino, off, size)
		switch {
		case err == nil:
			start, end = s, t
		case !errors.Is(err, errNoData) && !errors.Is(notExist(err), fs.ErrNotExist):
			return 0, 0, err
		}
	}
	first, _ := span(off, 0)
	if b, ok := e.v.images.next(e.number, ino, first, (uint64(start)+blockSize-1)>>blockShift, false); ok {
		if at := max(int64(b)<<blockShift, off); at < start {
			return at, blockEnd(b, size), nil
		}
	}
	first, n := span(start, end-start)
	if b, ok := e.v.images.next(e.number, ino, first, first+n, true); ok {
		if at := int64(b) << blockShift; at > start {
			return start, at, nil
		}
		next := blockEnd(b, size)
		return next, next, nil
	}
	return start, end, nil
}

func (e *Ended) liveData(ctx context.Context, ino uint64, off, size int64) (start, end int64, err error) {
	if f := e.v.heldFile(ino); f != nil {
		return nextData(f.Seek, off, size)
	}
	err = e.located(ctx, ino, func() (err error) {
		start, end, err = nextData(func(o int64, w int) (int64, error) { return e.v.tree.Seek(ino, o, w) }, off, size)
		return err
	})
	return start, end, err
}
