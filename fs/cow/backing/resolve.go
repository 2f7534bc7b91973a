package backing

import (
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	resolveFlags = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	pathFlags    = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	statMask     = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID
)

// acquire returns a descriptor of ino that serves for kind; the caller releases it. The caller doesn't hold the names lock.
func (t *Tree) acquire(ino uint64, kind int) (*handle, error) {
	n := t.nodes.get(ino)
	if n == nil {
		return nil, syscall.ESTALE
	}
	if h := n.cached(kind); h != nil {
		return h, nil
	}
	t.names.RLock()
	h, err := t.pathLocked(n)
	t.names.RUnlock()
	if err != nil || kind == kindPath {
		return h, err
	}
	defer h.release()
	return t.reopen(n, h, kind)
}

// acquireLocked is acquire of a path descriptor for callers that hold the names lock.
func (t *Tree) acquireLocked(ino uint64) (*handle, error) {
	n := t.nodes.get(ino)
	if n == nil {
		return nil, syscall.ESTALE
	}
	return t.pathLocked(n)
}

// pathLocked returns a path descriptor of n. Names in directories that are gone, removed behind our back, are
// forgotten, and the others tried. The names lock is held.
func (t *Tree) pathLocked(n *node) (*handle, error) {
	for {
		h, err := t.firstPathLocked(n)
		if err != syscall.ESTALE || !t.forgetFirstLink(n) {
			return h, err
		}
	}
}

// forgetFirstLink forgets the name that n was looked for under, if there is another one.
func (t *Tree) forgetFirstLink(n *node) bool {
	n.mu.Lock()
	if len(n.links) < 2 {
		n.mu.Unlock()
		return false
	}
	n.links = n.links[1:]
	mv := t.recordLocked(n)
	n.mu.Unlock()
	t.moveKid(mv)
	return true
}

// firstPathLocked returns a path descriptor of n, opened by its first name from its nearest ancestor that has one.
func (t *Tree) firstPathLocked(n *node) (*handle, error) {
	var chain []*node
	var base *handle
	for cur := n; ; {
		if base = cur.cached(kindPath); base != nil {
			break
		}
		chain = append(chain, cur)
		p, _, ok := t.Parent(cur.ino)
		if !ok {
			if base = t.byHandle(cur); base != nil {
				chain = chain[:len(chain)-1]
				break
			}
		}
		if !ok || len(chain) > 1<<17 {
			return nil, syscall.ESTALE
		}
		if cur = t.nodes.get(p); cur == nil {
			return nil, syscall.ESTALE
		}
	}
	for _, cur := range slices.Backward(chain) {
		h, err := t.step(base, cur)
		base.release()
		if err != nil {
			return nil, err
		}
		base = h
	}
	return base, nil
}

// step opens n, whose first link is in the directory base. Links that lead elsewhere are forgotten, and the others tried.
func (t *Tree) step(base *handle, n *node) (*handle, error) {
	for {
		n.mu.Lock()
		if len(n.links) == 0 {
			n.mu.Unlock()
			return nil, syscall.ESTALE
		}
		l := n.links[0]
		typ := n.typ
		n.mu.Unlock()
		from := base
		if l.parent != base.n.ino {
			var err error
			if from, err = t.acquireLocked(l.parent); err != nil {
				return nil, err
			}
			defer from.release()
		}
		fd, err := t.openVerified(from.fd, l.name, n.ino, typ)
		if err == nil {
			return t.install(n, kindPath, fd), nil
		}
		if err != syscall.ENOENT && err != syscall.ESTALE && err != syscall.ENOTDIR {
			return nil, err
		}
		n.mu.Lock()
		n.links = slices.DeleteFunc(n.links, func(x link) bool { return x == l })
		var mv kidMove
		if len(n.links) > 0 {
			mv = t.recordLocked(n)
		}
		n.mu.Unlock()
		t.moveKid(mv)
	}
}

// byHandle opens an inode without a known name that has a file handle; nil: it hasn't, or is gone.
func (t *Tree) byHandle(n *node) *handle {
	n.mu.Lock()
	fh := n.fh
	n.mu.Unlock()
	if fh == nil {
		return nil
	}
	fd, err := unix.OpenByHandleAt(t.root.pin.fd, *fh, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return nil
	}
	if st, err := t.statx(fd, ""); err != nil || st.Ino != n.ino {
		unix.Close(fd)
		return nil
	}
	return t.install(n, kindPath, fd)
}

// openVerified opens dir/name and makes sure that it is the inode ino of this filesystem, of type typ (0: any).
func (t *Tree) openVerified(dir int, name string, ino uint64, typ uint32) (int, error) {
	fd, err := t.openAt(dir, name)
	if err != nil {
		return -1, err
	}
	st, err := t.statx(fd, "")
	if err == nil {
		if err = t.inside(st); err == nil && (st.Ino != ino || typ != 0 && uint32(st.Mode)&unix.S_IFMT != typ) {
			err = syscall.ESTALE
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openAt opens dir/name as a path descriptor, following nothing.
func (t *Tree) openAt(dir int, name string) (fd int, err error) {
	how := unix.OpenHow{Flags: pathFlags, Resolve: resolveFlags}
	err = eintr(func() error {
		fd, err = unix.Openat2(dir, name, &how)
		if err == syscall.EAGAIN { // a rename somewhere raced with RESOLVE_BENEATH
			return syscall.EINTR
		}
		return err
	})
	return fd, err
}

// inside refuses what is on another filesystem, or on this one through another mount.
func (t *Tree) inside(st *unix.Statx_t) error {
	if (devID{st.Dev_major, st.Dev_minor}) == t.dev && (st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id == t.mnt) {
		return nil
	}
	return syscall.EXDEV
}

// warnXdev tells people once where a volume stops.
func (t *Tree) warnXdev(dir uint64, name string) {
	if _, told := t.xdev.LoadOrStore(dir, true); told {
		return
	}
	p, _ := t.Path(dir)
	t.log.Warn("another filesystem is mounted inside the backing directory; it isn't part of the volume (EXDEV): unmount it, or make a volume of it", "path", p+"/"+name)
}

// reopen opens the inode behind a path descriptor for reading or writing.
func (t *Tree) reopen(n *node, path *handle, kind int) (*handle, error) {
	n.mu.Lock()
	typ := n.typ
	n.mu.Unlock()
	flags := unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	switch {
	case typ == unix.S_IFDIR:
		if kind == kindWrite {
			return nil, syscall.EISDIR
		}
		flags |= unix.O_RDONLY | unix.O_DIRECTORY
	case typ != unix.S_IFREG:
		return nil, syscall.EINVAL
	case kind == kindWrite:
		flags |= unix.O_RDWR
	}
	fd, err := openFD(path.fd, typ, flags)
	if err == syscall.EACCES && t.creds == nil {
		fd, err = openForced(path.fd, typ, flags)
	}
	if err != nil {
		return nil, err
	}
	return t.install(n, kind, fd), nil
}

func openFD(path int, typ uint32, flags int) (fd int, err error) {
	err = eintr(func() error {
		if typ == unix.S_IFDIR {
			fd, err = unix.Openat(path, ".", flags, 0)
		} else {
			fd, err = unix.Open(procPath(path), flags, 0)
		}
		return err
	})
	return fd, err
}

// openForced opens a file whose mode forbids it to its own owner (mode 0 at create, and the descriptor is gone): the kernel
// has granted the open long ago. The mode is put back at once.
func openForced(path int, typ uint32, flags int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return -1, err
	}
	if int(st.Uid) != unix.Geteuid() {
		return -1, syscall.EACCES
	}
	mode := st.Mode & 0o7777
	if err := chmodFD(path, mode|0o600); err != nil {
		return -1, err
	}
	fd, err := openFD(path, typ, flags)
	if e := chmodFD(path, mode); err == nil && e != nil {
		unix.Close(fd)
		return -1, e
	}
	return fd, err
}

// statx of dir/name, or of the descriptor itself if name is empty. It follows nothing and triggers no automount.
func (t *Tree) statx(dir int, name string) (*unix.Statx_t, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	st := new(unix.Statx_t)
	err := eintr(func() error { return unix.Statx(dir, name, flags, statMask, st) })
	return st, err
}

// Path tells an inode's path below the root, for people: "/a/b". ENOENT if it has no known name.
func (t *Tree) Path(ino uint64) (string, error) {
	var parts []string
	for ino != t.root.ino {
		p, name, ok := t.Parent(ino)
		if !ok || len(parts) > 1<<17 {
			return "", syscall.ENOENT
		}
		parts = append(parts, name)
		ino = p
	}
	slices.Reverse(parts)
	return "/" + strings.Join(parts, "/"), nil
}
