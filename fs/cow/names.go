package cow

import (
	"syscall"

	"graphvol/fs/cow/backing"
)

func isDir(a Attr) bool { return a.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// makeNode runs act, which makes a new inode under a name. typ is the new inode's S_IFMT type.
func (v *Volume) makeNode(c Caller, dir uint64, name string, typ uint32, act func() (Attr, error)) (Attr, error) {
	r, err := v.begin(want{ino: dir, kind: wantNames})
	if err != nil {
		return Attr{}, err
	}
	defer v.gate.leave()
	d := r.state(dir)
	d.names.Lock()
	defer d.names.Unlock()
	return v.makeLocked(r, c, d, name, typ, act)
}

func (v *Volume) makeLocked(r *running, c Caller, d *inodeState, name string, typ uint32, act func() (Attr, error)) (Attr, error) {
	if err := v.markName(r, d, name); err != nil {
		return Attr{}, err
	}
	a, err := act()
	if err == syscall.EEXIST && c.Resent {
		// The parent is locked by the kernel since it saw that the name is free, so it was this
		// request that made it.
		if b, lerr := v.tree.Lookup(d.ino, name); lerr == nil {
			if b.Mode&syscall.S_IFMT == typ {
				a, err = b, nil
			} else {
				v.tree.Forget(b.Ino, 1)
			}
		}
	}
	if err != nil {
		return Attr{}, err
	}
	r.changed(d, v.markFresh(r, a))
	return a, nil
}

// Create makes a regular file, or opens the one that is there as open(2) with O_CREAT does.
func (v *Volume) Create(c Caller, dir uint64, name string, flags, mode uint32) (Attr, error) {
	r, err := v.begin(want{ino: dir, kind: wantNames})
	if err != nil {
		return Attr{}, err
	}
	defer v.gate.leave()
	d := r.state(dir)
	d.names.Lock()
	defer d.names.Unlock()
	act := func() (Attr, error) { return v.tree.Create(c.Caller, dir, name, flags, mode) }
	old, err := v.tree.StatName(dir, name)
	if err != nil || flags&syscall.O_EXCL != 0 {
		return v.makeLocked(r, c, d, name, syscall.S_IFREG, act)
	}
	st := r.state(old.Ino)
	if flags&syscall.O_TRUNC != 0 {
		if _, err := v.touch(r, st); err != nil {
			return Attr{}, err
		}
		if err := v.markCut(r, st, 0); err != nil {
			return Attr{}, err
		}
	}
	a, err := act()
	if err == nil && c.Resent {
		v.markFresh(r, a) // it may be its own former making, which was not marked any more
	}
	r.changed(d, st)
	return a, err
}

// Tmpfile makes a regular file without a name, like open(2) with O_TMPFILE.
func (v *Volume) Tmpfile(c Caller, dir uint64, flags, mode uint32) (Attr, error) {
	r, err := v.begin()
	if err != nil {
		return Attr{}, err
	}
	defer v.gate.leave()
	a, err := v.tree.Tmpfile(c.Caller, dir, flags, mode)
	if err == nil {
		v.markFresh(r, a)
	}
	return a, err
}

// Mkdir makes a directory.
func (v *Volume) Mkdir(c Caller, dir uint64, name string, mode uint32) (Attr, error) {
	return v.makeNode(c, dir, name, syscall.S_IFDIR, func() (Attr, error) { return v.tree.Mkdir(c.Caller, dir, name, mode) })
}

// Mknod makes a file of any type but directory and symbolic link.
func (v *Volume) Mknod(c Caller, dir uint64, name string, mode uint32, rdev uint64) (Attr, error) {
	typ := mode & syscall.S_IFMT
	if typ == 0 {
		typ = syscall.S_IFREG
	}
	return v.makeNode(c, dir, name, typ, func() (Attr, error) { return v.tree.Mknod(c.Caller, dir, name, mode, rdev) })
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(c Caller, dir uint64, name, target string) (Attr, error) {
	return v.makeNode(c, dir, name, syscall.S_IFLNK, func() (Attr, error) { return v.tree.Symlink(c.Caller, dir, name, target) })
}

// Link gives an inode one more name.
func (v *Volume) Link(c Caller, ino, dir uint64, name string) (Attr, error) {
	r, err := v.begin(want{ino: dir, kind: wantNames})
	if err != nil {
		return Attr{}, err
	}
	defer v.gate.leave()
	d, st := r.state(dir), r.state(ino)
	d.names.Lock()
	defer d.names.Unlock()
	st.names.Lock()
	defer st.names.Unlock()
	if err := v.markName(r, d, name); err != nil {
		return Attr{}, err
	}
	in, err := v.touch(r, st)
	if err != nil {
		return Attr{}, err
	}
	before, err := v.tree.Stat(ino)
	if err != nil {
		return Attr{}, err
	}
	a, err := v.tree.Link(c.Caller, ino, dir, name)
	if err == syscall.EEXIST && c.Resent {
		if b, lerr := v.tree.StatName(dir, name); lerr == nil && b.Ino == ino {
			a, err = v.tree.Lookup(dir, name)
		}
	}
	if err != nil {
		return Attr{}, err
	}
	if before.Nlink == 0 {
		in.MarkFresh() // the parent snapshot doesn't have what had no name
	}
	if p, _ := in.Hint(); p == 0 {
		v.hint(r, in)
	}
	r.changed(d, st)
	return a, nil
}

// Unlink removes a name of anything but a directory.
func (v *Volume) Unlink(c Caller, dir uint64, name string) (backing.Removal, error) {
	return v.remove(c, dir, name, v.tree.Unlink)
}

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(c Caller, dir uint64, name string) (backing.Removal, error) {
	return v.remove(c, dir, name, v.tree.Rmdir)
}

func (v *Volume) remove(c Caller, dir uint64, name string,
	act func(backing.Caller, uint64, string) (backing.Removal, error)) (backing.Removal, error) {
	r, err := v.begin(want{ino: dir, kind: wantNames})
	if err != nil {
		return backing.Removal{}, err
	}
	defer v.gate.leave()
	d := r.state(dir)
	d.names.Lock()
	defer d.names.Unlock()
	a, err := v.tree.StatName(dir, name)
	if err != nil {
		if c.Resent && err == syscall.ENOENT {
			return backing.Removal{}, nil
		}
		return backing.Removal{}, err
	}
	st := r.state(a.Ino)
	if !isDir(a) {
		st.names.Lock()
		defer st.names.Unlock()
	}
	if err := v.markName(r, d, name); err != nil {
		return backing.Removal{}, err
	}
	k, err := v.losing(r, st)
	if err != nil {
		return backing.Removal{}, err
	}
	rem, err := act(c.Caller, dir, name)
	if err != nil {
		k.stays()
		return rem, err
	}
	k.gone()
	v.lost(st, rem)
	r.changed(d, st)
	return rem, nil
}

// losing prepares for an inode's loss of a name: it is marked, and if that is its last name, what snapshots need of it is
// kept. st.names is held unless it is a directory.
func (v *Volume) losing(r *running, st *inodeState) (kept, error) {
	if _, err := v.touch(r, st); err != nil {
		return kept{}, err
	}
	a, err := v.tree.Stat(st.ino)
	if err != nil {
		return kept{}, err
	}
	if isDir(a) || a.Nlink <= 1 {
		return v.keep(r, st, a), nil
	}
	return kept{}, nil
}

// lost marks what has happened to an inode that lost a name.
func (v *Volume) lost(st *inodeState, rem backing.Removal) {
	in := st.in.Load()
	if rem.After.Nlink == 0 {
		in.MarkRemoved()
		return
	}
	if parent, name, ok := v.tree.Parent(st.ino); ok {
		in.SetHint(parent, name)
	}
}
