package backing

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Link gives ino one more name. A file made by Tmpfile gets its first one.
func (t *Tree) Link(c Caller, ino, newdir uint64, newname string) (Attr, error) {
	if err := checkName(newname); err != nil {
		return Attr{}, err
	}
	t.names.RLock()
	defer t.names.RUnlock()
	h, err := t.acquireLocked(ino)
	if err != nil {
		return Attr{}, err
	}
	defer h.release()
	d, err := t.acquireLocked(newdir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	err = eintr(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(h.fd), d.fd, newname, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return Attr{}, err
	}
	a, err := t.stat(h)
	if err == nil {
		t.learn(a, newdir, newname, 1)
	}
	return a, err
}

// Unlink removes a name of what is no directory.
func (t *Tree) Unlink(c Caller, dir uint64, name string) (Removal, error) {
	return t.remove(dir, name, 0)
}

// Rmdir removes an empty directory.
func (t *Tree) Rmdir(c Caller, dir uint64, name string) (Removal, error) {
	return t.remove(dir, name, unix.AT_REMOVEDIR)
}

func (t *Tree) remove(dir uint64, name string, flags int) (Removal, error) {
	if err := checkName(name); err != nil {
		return Removal{}, err
	}
	var r Removal
	v := victim{fd: -1}
	err := func() error {
		t.names.Lock()
		defer t.names.Unlock()
		d, err := t.acquireLocked(dir)
		if err != nil {
			return err
		}
		defer d.release()
		if v, err = t.take(d, dir, name); err != nil {
			return err
		}
		undo := t.keepOpen(&v)
		if err := eintr(func() error { return unix.Unlinkat(d.fd, name, flags) }); err != nil {
			undo()
			return err
		}
		r, err = t.removed(&v)
		return err
	}()
	// Outside the lock: closing the last descriptor of a large file frees its blocks, which takes time.
	v.close()
	return r, err
}

// victim is an inode that is about to lose a name.
type victim struct {
	fd     int
	before Attr
	l      link
}

// take opens what dir/name means.
func (t *Tree) take(d *handle, dir uint64, name string) (victim, error) {
	v := victim{fd: -1, l: link{dir, name}}
	fd, err := t.openAt(d.fd, name)
	if err != nil {
		if err == syscall.EXDEV {
			t.warnXdev(dir, name)
		}
		return v, err
	}
	st, err := t.statx(fd, "")
	if err == nil {
		err = t.inside(st)
	}
	if err != nil {
		unix.Close(fd)
		return v, err
	}
	v.fd, v.before = fd, t.fill(st, fd, "")
	return v, nil
}

// removed tells what became of the victim; its name is gone from the backing. The names lock is held.
func (t *Tree) removed(v *victim) (Removal, error) {
	st, err := t.statx(v.fd, "")
	if err != nil {
		return Removal{}, err
	}
	after := attrOf(st)
	after.Gen = v.before.Gen
	if after.Mode&unix.S_IFMT == unix.S_IFDIR {
		after.Nlink = 0
	}
	// The node may keep a duplicate; v.fd is closed outside the lock.
	keep, err := unix.FcntlInt(uintptr(v.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		keep = v.fd
		v.fd = -1
	}
	t.unlinkName(after, v.l, keep)
	return Removal{Before: v.before, After: after}, nil
}

func (v *victim) close() {
	if v.fd >= 0 {
		unix.Close(v.fd)
		v.fd = -1
	}
}

// Rename moves olddir/oldname to newdir/newname. Permissions (sticky directories too) were checked by the kernel.
func (t *Tree) Rename(c Caller, olddir uint64, oldname string, newdir uint64, newname string, flags uint32) (Moved, error) {
	if err := checkName(oldname); err != nil {
		return Moved{}, err
	}
	if err := checkName(newname); err != nil {
		return Moved{}, err
	}
	var src, dst victim
	src.fd, dst.fd = -1, -1
	defer func() { src.close(); dst.close() }() // after the names lock is free: see remove
	t.names.Lock()
	defer t.names.Unlock()
	od, err := t.acquireLocked(olddir)
	if err != nil {
		return Moved{}, err
	}
	defer od.release()
	nd, err := t.acquireLocked(newdir)
	if err != nil {
		return Moved{}, err
	}
	defer nd.release()
	if src, err = t.take(od, olddir, oldname); err != nil {
		return Moved{}, err
	}
	if dst, err = t.take(nd, newdir, newname); err != nil && err != syscall.ENOENT {
		return Moved{}, err
	}
	undo := func() {}
	if dst.fd >= 0 && flags&RenameExchange == 0 {
		undo = t.keepOpen(&dst)
	}
	err = t.as(c, func() error {
		return eintr(func() error { return unix.Renameat2(od.fd, oldname, nd.fd, newname, uint(flags)) })
	})
	if err != nil {
		undo()
		return Moved{}, err
	}
	return t.moved(&src, &dst, flags)
}

// moved brings the nodes in line with a rename that has happened. The names lock is held.
func (t *Tree) moved(src, dst *victim, flags uint32) (Moved, error) {
	var m Moved
	if dst.fd >= 0 && dst.before.Ino == src.before.Ino {
		m.Inode, m.Same = src.before, true
		return m, nil
	}
	st, err := t.statx(src.fd, "")
	if err != nil {
		return m, err
	}
	m.Inode = t.fill(st, src.fd, "")
	if flags&RenameExchange != 0 {
		if st, err = t.statx(dst.fd, ""); err != nil {
			return m, err
		}
		other := t.fill(st, dst.fd, "")
		m.Exchanged = &other
		t.relink(other, dst.l, src.l)
	} else if dst.fd >= 0 {
		r, err := t.removed(dst)
		if err != nil {
			return m, err
		}
		m.Replaced = &r
	}
	t.relink(m.Inode, src.l, dst.l)
	return m, nil
}

// relink changes one name of a known inode.
func (t *Tree) relink(a Attr, from, to link) {
	n := t.nodes.getLocked(a.Ino, nil)
	if n == nil {
		return
	}
	for i := range n.links {
		if n.links[i] == from {
			n.links = append(n.links[:i], n.links[i+1:]...)
			break
		}
	}
	n.links = append([]link{to}, n.links...)
	mv := t.recordLocked(n)
	n.mu.Unlock()
	t.moveKid(mv)
}
