package backing

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Create makes a regular file. The file exists already: EEXIST with O_EXCL in flags, else it is looked up. Like all creating
// calls it adds one kernel reference. It doesn't count as an open.
func (t *Tree) Create(c Caller, dir uint64, name string, flags, mode uint32) (Attr, error) {
	var fd int
	a, err := t.create(c, dir, name, mode, func(d int, mode uint32) (err error) {
		how := unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOCTTY
		fd, err = unix.Openat(d, name, how, mode)
		return err
	})
	if err == syscall.EEXIST && flags&unix.O_EXCL == 0 {
		if a, err = t.Lookup(dir, name); err == syscall.ENOENT { // removed in between
			return t.Create(c, dir, name, flags, mode)
		}
		return a, err
	}
	if err != nil {
		if fd > 0 {
			unix.Close(fd)
		}
		return Attr{}, err
	}
	t.adopt(a.Ino, fd)
	return a, nil
}

// adopt gives the descriptor that made a file to its node.
func (t *Tree) adopt(ino uint64, fd int) {
	n := t.nodes.get(ino)
	if n == nil {
		unix.Close(fd)
		return
	}
	t.install(n, kindWrite, fd).release()
}

// Tmpfile makes a regular file without a name in dir. It can be linked, unless flags has O_EXCL.
func (t *Tree) Tmpfile(c Caller, dir uint64, flags, mode uint32) (Attr, error) {
	d, err := t.acquire(dir, kindPath)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	how := unix.O_RDWR | unix.O_TMPFILE | unix.O_CLOEXEC | int(flags)&unix.O_EXCL
	var fd int
	mode = t.mask(c, d, mode)
	err = t.as(c, func() error {
		return eintr(func() (err error) {
			fd, err = unix.Openat(d.fd, ".", how, mode)
			return err
		})
	})
	if err != nil {
		return Attr{}, err
	}
	st, err := t.statx(fd, "")
	if err != nil {
		unix.Close(fd)
		return Attr{}, err
	}
	a := attrOf(st)
	a.Gen = t.generation(fd, "")
	n := t.learn(a, 0, "", 1)
	h := newHandle(n, kindWrite, fd)
	h.refs.Add(1)
	n.mu.Lock()
	old := n.dropHandlesLocked()
	n.pin, n.h[kindWrite] = h, h
	n.mu.Unlock()
	t.releaseAll(old)
	return a, nil
}

// Mkdir makes a directory.
func (t *Tree) Mkdir(c Caller, dir uint64, name string, mode uint32) (Attr, error) {
	return t.create(c, dir, name, mode, func(d int, mode uint32) error { return unix.Mkdirat(d, name, mode) })
}

// Mknod makes a FIFO, socket, device or regular file. mode has the type.
func (t *Tree) Mknod(c Caller, dir uint64, name string, mode uint32, rdev uint64) (Attr, error) {
	return t.create(c, dir, name, mode, func(d int, mode uint32) error { return unix.Mknodat(d, name, mode, int(rdev)) })
}

// Symlink makes a symbolic link.
func (t *Tree) Symlink(c Caller, dir uint64, name, target string) (Attr, error) {
	return t.create(c, dir, name, 0o777, func(d int, _ uint32) error { return unix.Symlinkat(target, d, name) })
}

// create runs make in dir for the caller, and makes known what came of it.
func (t *Tree) create(c Caller, dir uint64, name string, mode uint32, make func(d int, mode uint32) error) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	t.names.RLock()
	defer t.names.RUnlock()
	d, err := t.acquireLocked(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	mode = t.mask(c, d, mode)
	if err := t.as(c, func() error { return eintr(func() error { return make(d.fd, mode) }) }); err != nil {
		return Attr{}, err
	}
	st, err := t.statx(d.fd, name)
	if err != nil {
		return Attr{}, err
	}
	a := t.fill(st, d.fd, name)
	t.learn(a, dir, name, 1)
	return a, nil
}

// mask applies the caller's umask where d has no default ACL. With one, the backing's kernel computes the mode from it.
func (t *Tree) mask(c Caller, d *handle, mode uint32) uint32 {
	if c.Umask == 0 {
		return mode
	}
	if n, err := unix.Getxattr(procPath(d.fd), "system.posix_acl_default", nil); err == nil && n > 0 {
		return mode
	}
	return mode &^ (c.Umask & 0o777)
}
