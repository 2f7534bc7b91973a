package cow

import (
	"errors"
	"io/fs"
	"syscall"

	"graphvol/fs/cow/epoch"
)

// touch marks that an inode changes in this epoch, at the latest now: its attributes change with everything else. The error
// is the backing's.
func (v *Volume) touch(r *running, st *inodeState) (*epoch.Inode, error) {
	if in := st.in.Load(); in != nil {
		return in, nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return v.touchLocked(r, st)
}

func (v *Volume) touchLocked(r *running, st *inodeState) (*epoch.Inode, error) {
	if in := st.in.Load(); in != nil {
		return in, nil
	}
	a, err := v.tree.Stat(st.ino)
	if err != nil {
		return nil, err
	}
	v.scan.before(st.ino, a)
	if ns := v.needs(st, a.Gen); len(ns) > 0 {
		v.saveAttr(r, st.ino, a, ns)
	}
	in := r.ep.Inode(st.ino, a.Gen)
	v.hint(r, in)
	in.MarkAttr()
	st.in.Store(in)
	return in, nil
}

// hint records where an inode is, and where the directories above it are, so that a later server finds it by its number.
func (v *Volume) hint(r *running, in *epoch.Inode) {
	for in.Ino() != v.tree.Root() {
		parent, name, ok := v.tree.Parent(in.Ino())
		if !ok {
			return
		}
		in.SetHint(parent, name)
		if up := r.ep.Find(parent); up != nil {
			if p, _ := up.Hint(); p != 0 {
				return
			}
		}
		a, err := v.tree.Stat(parent)
		if err != nil {
			return
		}
		in = r.ep.Inode(parent, a.Gen)
	}
}

// marked tells a record of changes from one that only hints where a directory is.
func marked(in *epoch.Inode) bool {
	return in != nil && (in.Flags() != 0 || in.Count() > 0 || len(in.Names()) > 0)
}

// markBlocks marks n blocks as dirty, after saving those that an unsealed snapshot needs.
func (v *Volume) markBlocks(r *running, st *inodeState, first, n uint64) error {
	if st.fresh.Load() {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	in, err := v.touchLocked(r, st)
	if err != nil {
		return err
	}
	if n == 0 || in.Blocks(first, n) {
		return nil
	}
	if ns := v.needs(st, in.Gen()); len(ns) > 0 {
		v.saveBlocksLocked(r, st.ino, in, first, n, ns)
	}
	in.MarkBlocks(first, n)
	return nil
}

// markName marks one name of a directory as dirty, after saving what it means if an unsealed snapshot needs that. d.names is
// held.
func (v *Volume) markName(r *running, d *inodeState, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, err := v.touchLocked(r, d)
	if err != nil || d.fresh.Load() || in.HasName(name) {
		return err
	}
	ns := v.needs(d, in.Gen())
	if losers := v.needName(ns, d.ino, name); len(losers) > 0 {
		img := nameImage{}
		a, err := v.tree.StatName(d.ino, name)
		switch {
		case err == nil:
			img = nameImage{ino: a.Ino, typ: uint8(a.Mode >> 12)}
		case !errors.Is(err, syscall.ENOENT):
			v.lose(losers, err)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			v.images.saveName(r.label(), d.ino, name, img)
		}
	}
	in.MarkName(name)
	return nil
}

// markFresh marks an inode that was just made.
func (v *Volume) markFresh(r *running, a Attr) *inodeState {
	st := r.state(a.Ino)
	st.mu.Lock()
	defer st.mu.Unlock()
	in := r.ep.Inode(a.Ino, a.Gen)
	in.MarkFresh()
	in.MarkAttr()
	v.hint(r, in)
	st.fresh.Store(true)
	st.in.Store(in)
	return st
}

// forRange calls fn for the runs of blocks in [off, end) that hold data; holes stay what they are if that range is
// cut off or zeroed, so they need no mark.
func (v *Volume) forData(ino uint64, off, end int64, fn func(first, n uint64) error) error {
	for off < end {
		start, stop, err := nextData(func(o int64, w int) (int64, error) { return v.tree.Seek(ino, o, w) }, off, end)
		if errors.Is(err, errNoData) {
			return nil
		}
		if err != nil {
			return err
		}
		if first, n := span(start, stop-start); n > 0 {
			if err := fn(first, n); err != nil {
				return err
			}
		}
		off = stop
	}
	return nil
}

var errNoData = errors.New("no data")

const (
	seekData = 3
	seekHole = 4
)

// nextData finds the first range of data in [off, end). A filesystem that can't tell has data everywhere.
func nextData(seek func(off int64, whence int) (int64, error), off, end int64) (start, stop int64, err error) {
	start, err = seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return 0, 0, errNoData
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP):
		return off, end, nil
	case err != nil:
		return 0, 0, err
	case start >= end:
		return 0, 0, errNoData
	}
	stop, err = seek(start, seekHole)
	if err != nil || stop > end || stop <= start {
		stop = end
	}
	return start, stop, nil
}
