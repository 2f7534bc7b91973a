package model

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (w *worker) pickAny() (place, bool) { return w.pick(func(*node) bool { return true }) }

func (w *worker) chmod() error {
	p, ok := w.pick(func(n *node) bool { return !n.isSymlink() })
	if !ok {
		return nil
	}
	mode := uint32(w.rng.IntN(0o10000)) | 0o600
	if p.node.isDir() {
		mode |= 0o700
	}
	w.note("chmod %q %o", p.full(), mode)
	if err := unix.Chmod(p.full(), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: p.full(), Err: err}
	}
	p.node.mode = p.node.kind() | mode
	if p.node.acl != nil {
		p.node.acl = p.node.acl.chmod(mode)
	}
	return nil
}

func (w *worker) chown() error {
	p, ok := w.pickAny()
	if !ok {
		return nil
	}
	uid, gid := w.rng.IntN(3), w.rng.IntN(3)
	w.note("chown %q %d:%d", p.full(), uid, gid)
	if err := unix.Lchown(p.full(), uid, gid); err != nil {
		return &os.PathError{Op: "lchown", Path: p.full(), Err: err}
	}
	n := p.node
	n.uid, n.gid = uint32(uid), uint32(gid)
	if !n.isDir() && !n.isSymlink() {
		n.mode &^= unix.S_ISUID
		if n.mode&0o010 != 0 {
			n.mode &^= unix.S_ISGID
		}
	}
	return nil
}

func (w *worker) utimens() error {
	p, ok := w.pickAny()
	if !ok {
		return nil
	}
	ts := unix.Timespec{Sec: w.rng.Int64N(1 << 33), Nsec: w.rng.Int64N(1e9)}
	w.note("utimens %q %d.%09d", p.full(), ts.Sec, ts.Nsec)
	err := unix.UtimesNanoAt(unix.AT_FDCWD, p.full(), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: p.full(), Err: err}
	}
	p.node.mtime, p.node.known = ts, true
	return nil
}

func (w *worker) xattrName(n *node) string {
	space := "user"
	if n.isSymlink() || !n.isFile() && !n.isDir() || os.Geteuid() == 0 && w.rng.IntN(4) == 0 {
		space = "trusted"
	}
	return fmt.Sprintf("%s.x%d", space, w.rng.IntN(4))
}

func (w *worker) setxattr() error {
	p, ok := w.pickAny()
	if !ok {
		return nil
	}
	name := w.xattrName(p.node)
	if name[0] == 't' && os.Geteuid() != 0 {
		return nil
	}
	val := string(w.bytes(w.rng.IntN(300)))
	flags := w.rng.IntN(3) // 0, XATTR_CREATE, XATTR_REPLACE
	_, exists := p.node.xattrs[name]
	w.note("setxattr %q %s, %d bytes, flags %d", p.full(), name, len(val), flags)
	err := unix.Lsetxattr(p.full(), name, []byte(val), flags)
	switch {
	case flags == unix.XATTR_CREATE && exists:
		return expect("setxattr, create", err, unix.EEXIST)
	case flags == unix.XATTR_REPLACE && !exists:
		return expect("setxattr, replace", err, unix.ENODATA)
	case err != nil:
		return &os.PathError{Op: "setxattr " + name, Path: p.full(), Err: err}
	}
	if p.node.xattrs == nil {
		p.node.xattrs = map[string]string{}
	}
	p.node.xattrs[name] = val
	return nil
}

func (w *worker) removexattr() error {
	p, ok := w.pick(func(n *node) bool { return len(n.xattrs) > 0 || n.isFile() && w.rng.IntN(8) == 0 })
	if !ok {
		return nil
	}
	name := w.xattrName(p.node)
	w.note("removexattr %q %s", p.full(), name)
	err := unix.Lremovexattr(p.full(), name)
	if _, exists := p.node.xattrs[name]; !exists {
		if err == nil && w.mayRepeat.Load() {
			return nil // a request sent twice can't know whether its first half removed the attribute
		}
		return expect("removexattr of a missing attribute", err, unix.ENODATA)
	}
	if err != nil {
		return &os.PathError{Op: "removexattr " + name, Path: p.full(), Err: err}
	}
	delete(p.node.xattrs, name)
	return nil
}

// setACL sets an access list, or a default list on a directory.
func (w *worker) setACL() error {
	p, ok := w.pick(func(n *node) bool { return n.isFile() || n.isDir() })
	if !ok {
		return nil
	}
	perm := func() uint16 { return uint16(w.rng.IntN(8)) }
	a := &acl{owner: 7, user: perm(), group: perm(), mask: perm(), other: perm(), id: uint32(1000 + w.rng.IntN(3))}
	name := aclAccess
	if p.node.isDir() && w.rng.IntN(2) == 0 {
		name = aclDefault
	}
	w.note("setacl %q %s %+v", p.full(), name, *a)
	if err := unix.Lsetxattr(p.full(), name, []byte(a.encode()), 0); err != nil {
		return &os.PathError{Op: "setxattr " + name, Path: p.full(), Err: err}
	}
	if name == aclDefault {
		p.node.def = a
		return nil
	}
	p.node.acl = a
	p.node.mode = p.node.mode&^0o777 | a.bits()
	return nil
}
