package backing

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The path of a descriptor below /proc/thread-self/fd leads to the inode itself, to a symlink or device too: such have extended
// attributes (trusted, security), but no descriptor that the f…xattr calls would take.

// Getxattr is getxattr(2): it tells the size if dst is empty, ERANGE if dst is too small, ENODATA if there is none.
func (t *Tree) Getxattr(ino uint64, name string, dst []byte) (n int, err error) {
	err = t.atPath(ino, func(path string) error {
		n, err = unix.Getxattr(path, name, dst)
		return err
	})
	return n, err
}

// Listxattr is listxattr(2): names, each ended by a zero byte.
func (t *Tree) Listxattr(ino uint64, dst []byte) (n int, err error) {
	err = t.atPath(ino, func(path string) error {
		n, err = unix.Listxattr(path, dst)
		return err
	})
	return n, err
}

// Setxattr is setxattr(2); flags are XATTR_CREATE and XATTR_REPLACE.
func (t *Tree) Setxattr(ino uint64, name string, val []byte, flags int) error {
	return t.atPath(ino, func(path string) error { return unix.Setxattr(path, name, val, flags) })
}

// Removexattr is removexattr(2).
func (t *Tree) Removexattr(ino uint64, name string) error {
	return t.atPath(ino, func(path string) error { return unix.Removexattr(path, name) })
}

func (t *Tree) atPath(ino uint64, fn func(path string) error) error {
	h, err := t.acquire(ino, kindPath)
	if err != nil {
		return err
	}
	defer h.release()
	path := procPath(h.fd)
	return eintr(func() error { return fn(path) })
}

// Xattrs reads all extended attributes of an inode. nil: it has none, or the filesystem doesn't know them.
func (t *Tree) Xattrs(ino uint64) (map[string][]byte, error) {
	names, err := grow(func(p []byte) (int, error) { return t.Listxattr(ino, p) })
	if err == syscall.EOPNOTSUPP || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err == syscall.E2BIG { // xfs lets one set them
		path, _ := t.Path(ino)
		return nil, fmt.Errorf("%s has more names of extended attributes than Linux can list, 64 KiB: remove some: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		val, err := grow(func(p []byte) (int, error) { return t.Getxattr(ino, name, p) })
		if err == syscall.ENODATA { // removed in between
			continue
		}
		if err != nil {
			return nil, err
		}
		all[name] = val
	}
	return all, nil
}

// grow calls fn with a buffer that is large enough.
func grow(fn func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := fn(buf)
		if err == nil {
			return buf[:n:n], nil
		}
		if err != syscall.ERANGE || len(buf) > 1<<20 {
			return nil, err
		}
		buf = make([]byte, len(buf)*4)
	}
}
