package backing

import (
	"hash/fnv"
	"syscall"

	"golang.org/x/sys/unix"
)

func attrOf(st *unix.Statx_t) Attr {
	tm := func(x unix.StatxTimestamp) Time { return Time{x.Sec, x.Nsec} }
	a := Attr{
		Ino: st.Ino, Mode: uint32(st.Mode), Nlink: st.Nlink, Uid: st.Uid, Gid: st.Gid,
		Rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor), Size: int64(st.Size), Blocks: int64(st.Blocks), Blksize: st.Blksize,
		Atime: tm(st.Atime), Mtime: tm(st.Mtime), Ctime: tm(st.Ctime),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.Btime = tm(st.Btime)
	}
	return a
}

// generation tells the inodes apart that had the same number: a hash of the filesystem's own handle, 0 if it has none.
func (t *Tree) generation(dir int, name string) uint64 {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	fh, _, err := unix.NameToHandleAt(dir, name, flags)
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	h.Write(fh.Bytes())
	return h.Sum64()
}

// fileHandle returns the filesystem's handle of an open inode; nil: it has none.
func fileHandle(fd int) *unix.FileHandle {
	fh, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil
	}
	return &fh
}

// fill completes st to an Attr: with the generation known, if the node is the same inode, else a new one.
func (t *Tree) fill(st *unix.Statx_t, dir int, name string) Attr {
	a := attrOf(st)
	if n := t.nodes.get(a.Ino); n != nil {
		n.mu.Lock()
		gen, btime := n.gen, n.btime
		n.mu.Unlock()
		if btime == a.Btime && btime != (Time{}) {
			a.Gen = gen
			return a
		}
	}
	a.Gen = t.generation(dir, name)
	return a
}

// Stat tells the attributes of a known inode.
func (t *Tree) Stat(ino uint64) (Attr, error) {
	h, err := t.acquire(ino, kindPath)
	if err != nil {
		return Attr{}, err
	}
	defer h.release()
	return t.stat(h)
}

func (t *Tree) stat(h *handle) (Attr, error) {
	st, err := t.statx(h.fd, "")
	if err != nil {
		return Attr{}, err
	}
	return t.fill(st, h.fd, ""), nil
}

// StatName tells the attributes of dir/name. Unlike Lookup it adds no reference.
func (t *Tree) StatName(dir uint64, name string) (Attr, error) {
	t.names.RLock()
	defer t.names.RUnlock()
	return t.statNameLocked(dir, name)
}

func (t *Tree) statNameLocked(dir uint64, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	d, err := t.acquireLocked(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	st, err := t.statx(d.fd, name)
	if err != nil {
		return Attr{}, err
	}
	if err := t.inside(st); err != nil {
		t.warnXdev(dir, name)
		return Attr{}, err
	}
	return t.fill(st, d.fd, name), nil
}

// Lookup finds dir/name and adds one kernel reference. The names "." and ".." serve file handles: "." revives an inode by
// number, ".." tells a directory's parent.
func (t *Tree) Lookup(dir uint64, name string) (Attr, error) {
	if name == "." || name == ".." {
		return t.lookupSelf(dir, name)
	}
	t.names.RLock()
	defer t.names.RUnlock()
	a, err := t.statNameLocked(dir, name)
	if err == nil {
		t.learn(a, dir, name, 1)
	}
	return a, err
}

func (t *Tree) lookupSelf(ino uint64, name string) (Attr, error) {
	if name == ".." {
		p, _, ok := t.Parent(ino)
		if !ok {
			return Attr{}, syscall.ESTALE
		}
		ino = p
	}
	a, err := t.Stat(ino)
	if err == nil {
		t.learn(a, 0, "", 1)
	}
	return a, err
}

// Forget takes n kernel references from an inode.
func (t *Tree) Forget(ino, n uint64) {
	nd := t.nodes.getLocked(ino, nil)
	if nd == nil {
		return
	}
	t.table.store(func() { nd.rec.nlookup -= min(n, nd.rec.nlookup) })
	idle, named := nd.idleLocked(), len(nd.links) > 0
	nd.mu.Unlock()
	if !idle {
		return
	}
	if named {
		t.pushIdle(ino)
	} else {
		t.drop(ino, false)
	}
}

// chmodFD changes the mode of the inode behind any descriptor, a path descriptor too. A symlink's can't be changed.
func chmodFD(fd int, mode uint32) error {
	err := eintr(func() error { return unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH) })
	if err == syscall.ENOSYS || err == syscall.EOPNOTSUPP || err == syscall.EINVAL {
		err = eintr(func() error { return unix.Chmod(procPath(fd), mode) })
	}
	return err
}

// Setattr changes attributes in the order size, owner, mode, times, and returns what they are then. A call that sets nothing
// acts as chown(-1, -1) does: the change time becomes now, and an executable loses setuid and setgid.
func (t *Tree) Setattr(c Caller, ino uint64, in SetAttr) (Attr, error) {
	h, err := t.acquire(ino, kindPath)
	if err != nil {
		return Attr{}, err
	}
	defer h.release()
	if in.Valid&SetSize != 0 {
		if err := t.Truncate(ino, in.Size); err != nil {
			return Attr{}, err
		}
	}
	if in.Valid&(SetUid|SetGid) != 0 {
		if err := setOwner(h.fd, in); err != nil {
			return Attr{}, err
		}
	}
	if in.Valid == 0 {
		// The kernel sends the same before a write by somebody who isn't the owner and whose write clears setuid. That write carries
		// its own order to clear it, so what the caller isn't allowed here is left alone, not refused.
		if err := t.asUnprivileged(c, func() error { return setOwner(h.fd, in) }); err != nil && err != syscall.EPERM {
			return Attr{}, err
		}
	}
	if in.Valid&SetMode != 0 {
		if err := chmodFD(h.fd, in.Mode&0o7777); err != nil {
			return Attr{}, err
		}
	} else if in.Valid&SetKillPriv != 0 && in.Valid&(SetUid|SetGid) == 0 {
		if err := t.killPriv(c, h); err != nil {
			return Attr{}, err
		}
	}
	if in.Valid&(SetAtime|SetMtime) != 0 {
		if err := setTimes(h.fd, in); err != nil {
			return Attr{}, err
		}
	}
	return t.stat(h)
}

func setOwner(fd int, in SetAttr) error {
	uid, gid := -1, -1
	if in.Valid&SetUid != 0 {
		uid = int(in.Uid)
	}
	if in.Valid&SetGid != 0 {
		gid = int(in.Gid)
	}
	return eintr(func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func setTimes(fd int, in SetAttr) error {
	pick := func(set, now SetMask, t Time) unix.Timespec {
		switch {
		case in.Valid&set == 0:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case in.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	}
	ts := []unix.Timespec{pick(SetAtime, SetAtimeNow, in.Atime), pick(SetMtime, SetMtimeNow, in.Mtime)}
	return eintr(func() error { return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH) })
}

// KillPriv clears setuid, setgid (where the group may execute, or isn't the caller's) and security.capability: what a write, fallocate or copy by
// a caller without CAP_FSETID does. It is to be called before.
func (t *Tree) KillPriv(c Caller, ino uint64) error {
	h, err := t.acquire(ino, kindPath)
	if err != nil {
		return err
	}
	defer h.release()
	return t.killPriv(c, h)
}

func (t *Tree) killPriv(c Caller, h *handle) error {
	st, err := t.statx(h.fd, "")
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	// security.capability is cleared by the backing's kernel whoever writes, truncates or changes the owner.
	mode := uint32(st.Mode) & 0o7777
	clean := mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !c.inGroup(st.Gid)) {
		clean &^= unix.S_ISGID
	}
	if clean == mode {
		return nil
	}
	return chmodFD(h.fd, clean)
}

// Readlink tells a symlink's target.
func (t *Tree) Readlink(ino uint64) (string, error) {
	h, err := t.acquire(ino, kindPath)
	if err != nil {
		return "", err
	}
	defer h.release()
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(h.fd, "", buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}
