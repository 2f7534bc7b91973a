package model

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// add records a new name of n.
func (p place) add(n *node) {
	p.dir.entries[p.name] = n
	p.dir.touch()
}

// made checks the result of a call that makes the name p, and records it.
func (p place) made(what string, err error, n func() *node) error {
	if p.node != nil {
		return expect(what+" of a name that is taken", err, unix.EEXIST)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", what, p.full(), err)
	}
	p.add(n())
	return nil
}

func (w *worker) mkdir() error {
	if w.crowded() || w.dirs() >= maxDirs {
		return nil
	}
	p := w.anyPlace()
	mode := uint32(w.rng.IntN(0o1000)) | 0o700
	w.note("mkdir %q mode %o", p.full(), mode)
	return p.made("mkdir", unix.Mkdir(p.full(), mode), func() *node { return newNode(p.dir, unix.S_IFDIR|mode) })
}

func (w *worker) rmdir() error {
	p, ok := w.pick((*node).isDir)
	if !ok {
		return nil
	}
	w.note("rmdir %q, %d entries", p.full(), len(p.node.entries))
	err := unix.Rmdir(p.full())
	if len(p.node.entries) > 0 {
		return expect("rmdir of a full directory", err, unix.ENOTEMPTY)
	}
	if err != nil {
		return &os.PathError{Op: "rmdir", Path: p.full(), Err: err}
	}
	p.drop()
	return nil
}

// drop takes the name away.
func (p place) drop() {
	delete(p.dir.entries, p.name)
	p.dir.touch()
	p.node.links--
}

func (w *worker) symlink() error {
	if w.crowded() {
		return nil
	}
	p := w.anyPlace()
	target := string(w.bytes(0)) + fmt.Sprintf("../to/%d/\xfe", w.rng.IntN(1000))
	w.note("symlink %q", p.full())
	return p.made("symlink", unix.Symlink(target, p.full()), func() *node {
		n := newNode(p.dir, unix.S_IFLNK|0o777)
		n.target = target
		return n
	})
}

func (w *worker) mkfifo() error { return w.special(unix.S_IFIFO|0o640, 0) }

func (w *worker) mknod() error {
	if w.rng.IntN(2) == 0 {
		return w.special(unix.S_IFSOCK|0o600, 0)
	}
	return w.special(unix.S_IFCHR|0o600, unix.Mkdev(1, uint32(3+w.rng.IntN(5))))
}

func (w *worker) special(mode uint32, dev uint64) error {
	if w.crowded() {
		return nil
	}
	p := w.anyPlace()
	w.note("mknod %q mode %o", p.full(), mode)
	return p.made("mknod", unix.Mknod(p.full(), mode, int(dev)), func() *node {
		n := newNode(p.dir, mode)
		n.rdev = dev
		return n
	})
}

func (w *worker) link() error {
	src, ok := w.pick(func(n *node) bool { return !n.isDir() })
	if !ok || w.crowded() {
		return nil
	}
	p := w.anyPlace()
	w.note("link %q to %q", src.full(), p.full())
	return p.made("link", os.Link(src.full(), p.full()), func() *node {
		src.node.links++
		return src.node
	})
}

// unlink removes a name; now and then the file stays open.
func (w *worker) unlink() error {
	p, ok := w.pick(func(n *node) bool { return !n.isDir() })
	if !ok {
		return nil
	}
	if p.node.isFile() && len(w.open) < maxOpen && w.rng.IntN(3) == 0 {
		f, err := openFile(p.full(), unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		w.open = append(w.open, &handle{f, p.node})
	}
	w.note("unlink %q", p.full())
	if err := unix.Unlink(p.full()); err != nil {
		return &os.PathError{Op: "unlink", Path: p.full(), Err: err}
	}
	p.drop()
	return nil
}

func (w *worker) rename() error {
	src, ok := w.pick(func(*node) bool { return true })
	if !ok {
		return nil
	}
	dst := w.anyPlace()
	if within(src.node, dst.dir) || dst.node != nil && within(dst.node, src.dir) {
		return nil
	}
	flags := uint(0)
	if w.rng.IntN(4) == 0 {
		flags = unix.RENAME_NOREPLACE
	}
	w.note("rename %q to %q flags %d", src.full(), dst.full(), flags)
	err := unix.Renameat2(unix.AT_FDCWD, src.full(), unix.AT_FDCWD, dst.full(), flags)
	if want := renameError(src.node, dst.node, flags); want != nil {
		return expect("rename", err, want)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: src.full(), New: dst.full(), Err: err}
	}
	if src.node == dst.node {
		return nil // two names of one inode: nothing happens
	}
	if dst.node != nil {
		dst.drop()
	}
	delete(src.dir.entries, src.name)
	src.dir.touch()
	dst.add(src.node)
	return nil
}

func renameError(src, dst *node, flags uint) error {
	switch {
	case dst == nil:
		return nil
	case flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case src == dst:
		return nil
	case src.isDir() && !dst.isDir():
		return unix.ENOTDIR
	case !src.isDir() && dst.isDir():
		return unix.EISDIR
	case dst.isDir() && len(dst.entries) > 0:
		return unix.ENOTEMPTY
	}
	return nil
}

func (w *worker) exchange() error {
	a, ok := w.pick(func(*node) bool { return true })
	b, _ := w.pick(func(*node) bool { return true })
	if !ok || a.node == b.node || within(a.node, b.dir) || within(b.node, a.dir) {
		return nil
	}
	w.note("exchange %q and %q", a.full(), b.full())
	if err := unix.Renameat2(unix.AT_FDCWD, a.full(), unix.AT_FDCWD, b.full(), unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a.full(), New: b.full(), Err: err}
	}
	a.dir.entries[a.name], b.dir.entries[b.name] = b.node, a.node
	a.dir.touch()
	b.dir.touch()
	return nil
}
