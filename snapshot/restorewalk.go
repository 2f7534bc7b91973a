package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// walk restores a directory that is open, with what is selected below it; done follows.
func (r *restorer) walk(d *destDir, ino uint64, sel selection) {
	defer d.done()
	list, err := r.from.ReadDir(r.ctx, ino)
	if err != nil {
		d.problem(".", unreadable(err))
		return
	}
	if r.opts.Delete && sel == nil && d.fd >= 0 {
		r.removeOthers(d, list)
	}
	// As they were sealed: what lies together in the store is read together, which matters most where that is far away.
	list = slices.SortedFunc(slices.Values(list), func(a, b tree.Dirent) int { return cmp.Or(cmp.Compare(a.Ino, b.Ino), strings.Compare(a.Name, b.Name)) })
	for _, e := range list {
		below, ok := sel[e.Name]
		if sel != nil && !ok {
			continue
		}
		if r.stopped() {
			return
		}
		if err := checkName(e.Name); err != nil {
			d.problem(".", unreadable(err))
			continue
		}
		d.problem(e.Name, r.entry(d, e, below))
	}
}

// entry restores a directory, or gives the job of restoring anything else to a worker.
func (r *restorer) entry(d *destDir, e tree.Dirent, sel selection) error {
	in, err := r.from.Inode(r.ctx, e.Ino)
	if err != nil {
		return unreadable(err)
	}
	if tree.TypeOf(in.Mode) != e.Type {
		return unreadable(fmt.Errorf("inode %d has mode %o, its name says type %d", e.Ino, in.Mode, e.Type))
	}
	switch {
	case in.IsDir():
		return r.directory(d, e, &in, sel)
	case in.Nlink > 1:
		r.addLink(d, e)
		return nil
	}
	d.pending.Add(1)
	r.submit(func() {
		defer d.done()
		if !r.stopped() {
			r.problem(r.inode(d, e.Name, &in, 1))
		}
	})
	return nil
}

// inode restores what isn't a directory. links is the number of names that a file which is there may have to be kept. A
// problem without an error is none.
func (r *restorer) inode(d *destDir, name string, in *tree.Inode, links uint64) (p RestoreProblem) {
	switch {
	case in.IsRegular():
		p = r.file(d, name, in, links)
	case in.IsSymlink():
		p.Err = r.symlink(d, name, in, links)
	default:
		p.Err = r.special(d, name, in, links)
	}
	p.at = destName{d, name}
	return p
}

// directory restores a directory and all that is selected below it. One that leads to what is selected gets attributes only if it is
// new.
func (r *restorer) directory(d *destDir, e tree.Dirent, in *tree.Inode, sel selection) error {
	if r.met[e.Ino] {
		return unreadable(fmt.Errorf("directory %d has two names", e.Ino))
	}
	r.met[e.Ino] = true
	sub := &destDir{r: r, parent: d, name: e.Name, fd: -1, inode: *in}
	fresh, err := sub.open()
	if err != nil {
		return err
	}
	sub.set = fresh || sel == nil
	sub.pending.Store(1)
	d.pending.Add(1)
	if err := sub.enter(); err != nil {
		sub.set = false
		sub.done()
		return err
	}
	r.walk(sub, e.Ino, sel)
	return nil
}

// open opens the directory, or makes it.
func (d *destDir) open() (fresh bool, err error) {
	up := d.parent
	st, ok, err := up.stat(d.name)
	if err != nil {
		return false, err
	}
	if ok && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := d.r.vacate(up, d.name, &st); err != nil {
			return false, err
		}
		ok = false
	}
	if !ok {
		if d.r.opts.DryRun {
			return true, nil
		}
		if err := unix.Mkdirat(up.fd, d.name, 0o700); err != nil {
			return false, fmt.Errorf("make directory: %w", err)
		}
	}
	d.fd, err = openAt(up.fd, d.name, dirFlags, 0)
	if errors.Is(err, unix.EACCES) && !d.r.opts.DryRun && chmodAt(up.fd, d.name, 0o700) == nil {
		d.fd, err = openAt(up.fd, d.name, dirFlags, 0)
	}
	return !ok, err
}

// symlink restores a symbolic link.
func (r *restorer) symlink(d *destDir, name string, in *tree.Inode, links uint64) error {
	st, ok, err := d.stat(name)
	if err != nil {
		return err
	}
	same := ok && st.Mode&unix.S_IFMT == unix.S_IFLNK && st.Nlink == links
	if same {
		buf := make([]byte, len(in.Target)+1)
		n, err := unix.Readlinkat(d.fd, name, buf)
		same = err == nil && string(buf[:n]) == in.Target
	}
	return r.place(d, name, in, &st, ok, same, func() error { return unix.Symlinkat(in.Target, d.fd, name) })
}

// special restores a device, a named pipe or a socket.
func (r *restorer) special(d *destDir, name string, in *tree.Inode, links uint64) error {
	st, ok, err := d.stat(name)
	if err != nil {
		return err
	}
	kind := in.Mode & tree.ModeType
	device := kind == tree.ModeBlock || kind == tree.ModeChar
	same := ok && st.Mode&unix.S_IFMT == kind && st.Nlink == links && (!device || st.Rdev == in.Rdev)
	if device && r.euid != 0 && !same {
		r.warn("a device file", destName{d, name}, unix.EPERM)
		return errSkipped
	}
	return r.place(d, name, in, &st, ok, same, func() error { return unix.Mknodat(d.fd, name, kind|0o600, int(in.Rdev)) })
}

// errSkipped says that something isn't restored, which Warn was told.
var errSkipped = errors.New("skipped")

// place makes something that has no content, unless the same is there, and sets its attributes.
func (r *restorer) place(d *destDir, name string, in *tree.Inode, st *unix.Stat_t, there, same bool, mk func() error) error {
	if there && !same {
		if err := r.vacate(d, name, st); err != nil {
			return err
		}
	}
	if r.opts.DryRun {
		return nil
	}
	if !same {
		if err := mk(); err != nil {
			return fmt.Errorf("make it: %w", err)
		}
	}
	fd, err := openAt(d.fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return r.setAttr(attrTarget{fd: fd, pathOnly: true}, in, destName{d, name})
}

// selection is what of a directory is restored, by name; nil is everything.
type selection map[string]selection

// selectPaths turns paths into a selection, after a look whether the snapshot has them.
func (r *restorer) selectPaths(paths []string) (selection, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	all := selection{}
	for _, p := range paths {
		elems := slices.DeleteFunc(strings.Split(p, "/"), func(e string) bool { return e == "" || e == "." })
		if len(elems) == 0 {
			return nil, nil // the root
		}
		at, ino, whole := all, r.from.Root(), false
		for i, name := range elems {
			e, err := r.find(ino, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
			if i < len(elems)-1 && e.Type != tree.TypeOf(tree.ModeDir) {
				return nil, fmt.Errorf("%s: %w: %s is not a directory there", p, ErrNoPath, strings.Join(elems[:i+1], "/"))
			}
			below, known := at[name]
			if whole = whole || known && below == nil; whole {
				ino = e.Ino
				continue // something above is selected with all below it
			}
			if i == len(elems)-1 {
				at[name] = nil
			} else if !known {
				at[name] = selection{}
			}
			at, ino = at[name], e.Ino
		}
	}
	return all, nil
}
