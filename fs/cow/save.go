package cow

import (
	"errors"
	"math"
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
	if left := math.MaxInt64 - off; int64(len(p)) > left { // the kernel refuses what would end behind the last offset
		clear(p[left:])
		p = p[:left]
	}
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

// kept is what is kept of an inode that is about to lose its last name. Exactly one of gone and stays is called.
type kept struct {
	v     *Volume
	label uint64
	ino   uint64
	kind  goneKind // what it becomes when it has gone; goneNot: nobody needs anything of it
}

// keep makes sure that snapshots find an inode's content after its last name is gone.
func (v *Volume) keep(r *running, st *inodeState, a Attr) kept {
	ns := v.needs(st, a.Gen)
	if len(ns) == 0 {
		return kept{}
	}
	k := kept{v, r.label(), st.ino, goneSaved}
	switch {
	case isDir(a):
		// One that isn't empty won't go, and must not look empty until that turns out.
		if !v.isEmpty(st.ino) {
			return k
		}
	case a.Mode&syscall.S_IFMT != syscall.S_IFREG || !slices.ContainsFunc(ns, func(n need) bool { return n.content() }):
	case a.Size > copyInstead && v.hold(st.ino):
		k.kind = goneHeld
		v.images.setGone(k.label, k.ino, goneHeld)
		return k
	default:
		v.saveAll(r, st, a.Size, ns)
	}
	v.images.setGone(k.label, k.ino, goneSoon)
	return k
}

// gone: the last name went.
func (k kept) gone() {
	if k.kind != goneNot {
		k.v.images.setGone(k.label, k.ino, k.kind)
	}
}

// stays: the name is still there.
func (k kept) stays() {
	if k.kind == goneNot {
		return
	}
	k.v.images.clearGone(k.label, k.ino)
	if k.kind == goneHeld {
		k.v.letGo(k.ino)
	}
}

// isEmpty tells whether a directory has no names. What can't be read isn't known to be empty.
func (v *Volume) isEmpty(dir uint64) bool {
	s, err := v.tree.OpenDir(dir)
	if err != nil {
		return false
	}
	defer s.Close()
	empty := true
	err = s.ReadAt(0, func(e Dirent) bool {
		empty = e.Name == "." || e.Name == ".."
		return empty
	})
	return empty && err == nil
}

// hold keeps a file open for the snapshots that need it.
func (v *Volume) hold(ino uint64) bool {
	f, release, err := v.tree.Hold(ino)
	if err != nil {
		return false
	}
	v.held.Lock()
	defer v.held.Unlock()
	v.held.m[ino] = held{f, release}
	return true
}

// saveAll saves what snapshots need of a file's content.
func (v *Volume) saveAll(r *running, st *inodeState, size int64, ns []need) {
	st.mu.Lock()
	defer st.mu.Unlock()
	in := st.in.Load()
	err := v.forData(st.ino, 0, size, func(first, n uint64) error {
		v.saveBlocksLocked(r, st.ino, in, first, n, ns)
		return nil
	})
	if err != nil {
		v.loseAll(ns, err)
	}
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
