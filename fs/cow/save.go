package cow

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"

	"graphvol/fs/cow/epoch"
	"graphvol/snapshot/tree"
)

// runBlocks bounds how many blocks are saved at once.
const runBlocks = 256

var runBuffers = sync.Pool{New: func() any { b := make([]byte, runBlocks*blockSize); return &b }}

// saveBlocksLocked saves those of n blocks that are needed and not changed yet in this epoch.
func (v *Volume) saveBlocksLocked(r *running, ino uint64, in *epoch.Inode, first, n uint64, ns []need) {
	wants := func(b uint64) bool {
		return !in.Blocks(b, 1) && slices.ContainsFunc(ns, func(nd need) bool { return nd.block(v.images, ino, b) })
	}
	for b, end := first, first+n; b < end; {
		if !wants(b) {
			b++
			continue
		}
		e := b + 1
		for e < end && e-b < runBlocks && wants(e) {
			e++
		}
		if err := v.saveRun(r, ino, b, e-b); err != nil {
			v.lose(losers(v.images, ns, ino, b, e), err)
		}
		b = e
	}
}

// saveHoles saves what of [off, end) unsealed snapshots need, before blocks are allocated for its holes. That changes no content, so nothing is
// marked; but a filesystem takes blocks that are only allocated for data once somebody has read them.
func (v *Volume) saveHoles(r *running, st *inodeState, off, end int64) error {
	if end <= off {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	in, err := v.touchLocked(r, st)
	if err != nil {
		return err
	}
	ns := v.needs(st, in.Gen())
	first, n := span(off, end-off)
	for b, end := first, first+n; b < end && len(ns) > 0; b += pageBlocks {
		k := min(pageBlocks, end-b)
		if slices.ContainsFunc(ns, func(nd need) bool { return nd.anyBlock(b, k) }) {
			v.saveBlocksLocked(r, st.ino, in, b, k, ns)
		}
	}
	return nil
}

func losers(im *images, ns []need, ino, first, end uint64) (es []*Ended) {
	for i := range ns {
		for b := first; b < end; b++ {
			if ns[i].block(im, ino, b) {
				es = append(es, ns[i].e)
				break
			}
		}
	}
	return es
}

// saveRun copies blocks of the live file to the preimages. What lies behind the file's end is zero.
func (v *Volume) saveRun(r *running, ino, first, n uint64) error {
	bp := runBuffers.Get().(*[]byte)
	defer runBuffers.Put(bp)
	p := (*bp)[:n*blockSize]
	if err := readFull(func(p []byte, off int64) (int, error) { return v.tree.ReadAt(ino, p, off) }, p, int64(first)<<blockShift); err != nil {
		return err
	}
	return v.images.saveBlocks(r.label(), ino, first, p, func(i int) bool { return v.isHole(ino, first+uint64(i)) })
}

// isHole tells whether a block of a live file is a hole.
func (v *Volume) isHole(ino, block uint64) bool {
	off := int64(block) << blockShift
	_, _, err := nextData(func(o int64, w int) (int64, error) { return v.tree.Seek(ino, o, w) }, off, off+blockSize)
	return errors.Is(err, errNoData)
}

// readFull fills p, with zeros behind the end.
func readFull(read func([]byte, int64) (int, error), p []byte, off int64) error {
	for len(p) > 0 {
		n, err := read(p, off)
		if n == 0 {
			if err != nil && !isEOF(err) {
				return err
			}
			clear(p)
			return nil
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// saveAttr saves an inode's attributes, xattrs and link target for the snapshots in ns that have none yet.
func (v *Volume) saveAttr(r *running, ino uint64, a Attr, ns []need) {
	var es []*Ended
	for i := range ns {
		if !v.images.hasAttr(ns[i].e.number, ino) {
			es = append(es, ns[i].e)
		}
	}
	if len(es) == 0 {
		return
	}
	t, err := v.describe(a)
	if err != nil {
		v.lose(es, err)
		return
	}
	v.images.saveAttr(r.label(), ino, t)
}

// describe makes a snapshot's inode of the live one with attributes a.
func (v *Volume) describe(a Attr) (*tree.Inode, error) {
	t := &tree.Inode{
		Ino: a.Ino, Gen: a.Gen, Mode: a.Mode, UID: a.Uid, GID: a.Gid, Nlink: a.Nlink, Rdev: a.Rdev, Size: a.Size,
		Mtime: tree.Time(a.Mtime), Ctime: tree.Time(a.Ctime), Btime: tree.Time(a.Btime),
	}
	xs, err := v.tree.Xattrs(a.Ino)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, err
	}
	for name, val := range xs {
		t.Xattrs = append(t.Xattrs, tree.Xattr{Name: name, Value: val})
	}
	slices.SortFunc(t.Xattrs, func(a, b tree.Xattr) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	if t.IsSymlink() {
		if t.Target, err = v.tree.Readlink(a.Ino); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// holds are files without a name whose content an unsealed snapshot needs.
type holds struct {
	sync.Mutex
	m map[uint64]held
}

type held struct {
	f       *os.File
	release func()
}

// copyInstead: a file of at most so many bytes is copied when its last name goes, not held; descriptors are few.
const copyInstead = 32 << 10

// keep makes sure that snapshots find an inode's content after its last name is gone. undo is for when it stayed.
func (v *Volume) keep(r *running, st *inodeState, a Attr) (undo func()) {
	ns := v.needs(st, a.Gen)
	if len(ns) == 0 {
		return func() {}
	}
	label := r.label()
	regular := a.Mode&syscall.S_IFMT == syscall.S_IFREG
	if !regular || !slices.ContainsFunc(ns, func(n need) bool { return n.content() }) {
		v.images.setGone(label, st.ino, goneSaved)
		return func() { v.images.clearGone(label, st.ino) }
	}
	if a.Size > copyInstead {
		if f, release, err := v.tree.Hold(st.ino); err == nil {
			v.held.Lock()
			v.held.m[st.ino] = held{f, release}
			v.held.Unlock()
			v.images.setGone(label, st.ino, goneHeld)
			return func() { v.images.clearGone(label, st.ino); v.letGo(st.ino) }
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	in := st.in.Load()
	err := v.forData(st.ino, 0, a.Size, func(first, n uint64) error {
		v.saveBlocksLocked(r, st.ino, in, first, n, ns)
		return nil
	})
	if err != nil {
		v.loseAll(ns, err)
	}
	v.images.setGone(label, st.ino, goneSaved)
	return func() { v.images.clearGone(label, st.ino) }
}

func (v *Volume) loseAll(ns []need, err error) {
	es := make([]*Ended, len(ns))
	for i := range ns {
		es[i] = ns[i].e
	}
	v.lose(es, err)
}

func (v *Volume) letGo(ino uint64) {
	v.held.Lock()
	h, ok := v.held.m[ino]
	delete(v.held.m, ino)
	v.held.Unlock()
	if ok {
		h.release()
	}
}

func (v *Volume) heldFile(ino uint64) *os.File {
	v.held.Lock()
	defer v.held.Unlock()
	return v.held.m[ino].f
}
