package cow

import (
	"slices"
	"syscall"

	"graphvol/fs/cow/backing"
)

// move is a rename under way.
type move struct {
	v          *Volume
	r          *running
	c          Caller
	from, to   *inodeState // the directories
	on, nn     string
	flags      uint32
	src, dst   *inodeState // dst is nil if the new name is free
	srcA, dstA Attr
}

// Rename is renameat2(2), with backing.RenameNoReplace, RenameExchange and RenameWhiteout.
func (v *Volume) Rename(c Caller, olddir uint64, oldname string, newdir uint64, newname string, flags uint32) (backing.Moved, error) {
	r, err := v.begin(want{ino: olddir, kind: wantNames}, want{ino: newdir, kind: wantNames})
	if err != nil {
		return backing.Moved{}, err
	}
	defer v.gate.leave()
	m := &move{v: v, r: r, c: c, from: r.state(olddir), to: r.state(newdir), on: oldname, nn: newname, flags: flags}
	defer lockNames(m.from, m.to)()
	moved, done, err := m.look()
	if done || err != nil {
		return moved, err
	}
	var files []*inodeState
	if !isDir(m.srcA) {
		files = append(files, m.src)
	}
	if m.dst != nil && !isDir(m.dstA) {
		files = append(files, m.dst)
	}
	defer lockNames(files...)()
	return m.run()
}

// lockNames locks the names of inodes that are all directories, or all not, in ascending order of their numbers.
func lockNames(sts ...*inodeState) (unlock func()) {
	slices.SortFunc(sts, func(a, b *inodeState) int {
		if a.ino < b.ino {
			return -1
		}
		return 1
	})
	sts = slices.Compact(sts)
	for _, st := range sts {
		st.names.Lock()
	}
	return func() {
		for _, st := range sts {
			st.names.Unlock()
		}
	}
}

// look finds what the two names mean. done: a resent request that has been done before.
func (m *move) look() (moved backing.Moved, done bool, err error) {
	if m.c.Resent {
		m.relearn()
	}
	dst, derr := m.v.tree.StatName(m.to.ino, m.nn)
	if derr == nil {
		m.dstA, m.dst = dst, m.r.state(dst.Ino)
	} else if derr != syscall.ENOENT {
		return moved, false, derr
	}
	m.srcA, err = m.v.tree.StatName(m.from.ino, m.on)
	if err == syscall.ENOENT && m.c.Resent && derr == nil {
		return backing.Moved{Inode: dst}, true, nil
	}
	if err != nil {
		return moved, false, err
	}
	m.src = m.r.state(m.srcA.Ino)
	return moved, false, nil
}

// run marks, renames, and marks what came of it. All names involved are locked.
func (m *move) run() (backing.Moved, error) {
	k, err := m.mark()
	if err != nil {
		return backing.Moved{}, err
	}
	moved, done, err := m.once()
	if done {
		k.stays()
		m.whiteout()
		return moved, nil
	}
	if err != nil || moved.Same {
		k.stays()
		return moved, err
	}
	k.gone()
	m.settle(moved)
	return moved, nil
}

// once renames. What would do harm if it ran twice, when the kernel sends it again, is journalled. done: it has been done before.
func (m *move) once() (moved backing.Moved, done bool, err error) {
	act := func() (backing.Moved, error) {
		return m.v.tree.Rename(m.c.Caller, m.from.ino, m.on, m.to.ino, m.nn, m.flags)
	}
	e, check := entry{A: m.src.ino}, exchangeDone
	if m.dst != nil {
		e.B = m.dst.ino
	}
	switch {
	case m.flags&backing.RenameExchange != 0 && m.dst != nil:
		e.Op = opExchange
		moved = backing.Moved{Inode: m.dstA, Exchanged: &m.srcA}
	case m.flags&backing.RenameWhiteout != 0:
		e.Op, check = opWhiteout, whiteoutDone
		moved = backing.Moved{Inode: m.dstA}
	default:
		moved, err = act()
		return moved, false, err
	}
	done, end := m.v.journal.begin(m.c, e, check)
	if done {
		return moved, true, nil
	}
	moved, err = act()
	end(err == nil)
	return moved, false, err
}

// mark marks what the rename changes, and keeps what it replaces.
func (m *move) mark() (kept, error) {
	v, r := m.v, m.r
	if err := v.markName(r, m.from, m.on); err != nil {
		return kept{}, err
	}
	if err := v.markName(r, m.to, m.nn); err != nil {
		return kept{}, err
	}
	if _, err := v.touch(r, m.src); err != nil {
		return kept{}, err
	}
	if m.dst == nil || m.dst == m.src {
		return kept{}, nil
	}
	if m.flags&(backing.RenameExchange|backing.RenameNoReplace) != 0 {
		_, err := v.touch(r, m.dst)
		return kept{}, err
	}
	return v.losing(r, m.dst)
}

// relearn lets the backing see what stands at the two names: the server that died after it had renamed may not have told.
func (m *move) relearn() {
	for _, p := range []place{{parent: m.from.ino, name: m.on}, {parent: m.to.ino, name: m.nn}} {
		if a, err := m.v.tree.Lookup(p.parent, p.name); err == nil {
			m.v.tree.Forget(a.Ino, 1)
		}
	}
}

func (m *move) settle(moved backing.Moved) {
	v, r := m.v, m.r
	if p, _, ok := v.tree.Parent(m.src.ino); ok && p != 0 {
		v.hint(r, m.src.in.Load())
	}
	if moved.Replaced != nil && m.dst != nil {
		v.lost(m.dst, *moved.Replaced)
	}
	if moved.Exchanged != nil && m.dst != nil {
		v.hint(r, m.dst.in.Load())
	}
	m.whiteout()
	for _, a := range []Attr{m.srcA, m.dstA} {
		if isDir(a) {
			v.scan.moved(a.Ino)
		}
	}
	r.changed(m.from, m.to, m.src, m.dst)
}

// whiteout marks the inode that the rename left at the old name. The backing made it by the way and must be shown where it is:
// the kernel may never look it up, and a number that was in use before still has the hint of the inode that went.
func (m *move) whiteout() {
	if m.flags&backing.RenameWhiteout == 0 {
		return
	}
	if a, err := m.v.tree.Lookup(m.from.ino, m.on); err == nil {
		m.r.changed(m.v.markFresh(m.r, a))
		m.v.tree.Forget(a.Ino, 1)
	}
}
