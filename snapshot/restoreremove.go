package snapshot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// list gives the names in the directory. It has a descriptor of its own, for reading moves a position.
func (d *destDir) list() (names []string, err error) {
	if d.fd < 0 {
		return nil, nil
	}
	fd, err := openAt(d.fd, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.ReadDirent(fd, buf); return err })
		if err != nil {
			return nil, fmt.Errorf("read directory: %w", err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func (d *destDir) unlink(name string, flags int) error {
	err := retry(func() error { return unix.Unlinkat(d.fd, name, flags) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// removeOthers removes what the snapshot's directory doesn't have, but for protected directories with what leads to them.
func (r *restorer) removeOthers(d *destDir, list []tree.Dirent) {
	names, err := d.list()
	if err != nil {
		d.problem(".", err)
		return
	}
	keep := make(map[string]bool, len(list))
	for _, e := range list {
		keep[e.Name] = true
	}
	for _, name := range names {
		if keep[name] || r.stopped() {
			continue
		}
		st, ok, err := d.stat(name)
		if err == nil && ok {
			err = r.remove(d, name, &st)
		}
		if !errors.Is(err, ErrProtected) {
			d.problem(name, err)
		}
	}
}

// remove removes an entry, a directory with all that is in it. It refuses to go into other filesystems and protected
// directories.
func (r *restorer) remove(d *destDir, name string, st *unix.Stat_t) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		r.removed.Add(1)
		if r.opts.DryRun {
			return nil
		}
		return d.unlink(name, 0)
	}
	if p, ok := r.guarded[idOf(st)]; ok {
		return fmt.Errorf("not removed: %w: %s", ErrProtected, p)
	}
	if st.Dev != d.dev {
		return errors.New("not removed: another filesystem is mounted there; unmount it first")
	}
	fd, err := openAt(d.fd, name, dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sub := &destDir{r: r, parent: d, name: name, fd: fd, dev: st.Dev}
	names, err := sub.list()
	if err != nil {
		return err
	}
	var errs error // of the first entry that stays; the others go
	for _, n := range names {
		in, ok, err := sub.stat(n)
		if err == nil && ok {
			err = r.remove(sub, n, &in)
		}
		if err != nil && errs == nil {
			errs = fmt.Errorf("%s: %w", n, err)
		}
	}
	if errs != nil {
		return errs
	}
	r.removed.Add(1)
	if r.opts.DryRun {
		return nil
	}
	return d.unlink(name, unix.AT_REMOVEDIR)
}

// vacate removes what is in the place of something else, and counts only what was in a directory. A directory that isn't empty goes only if things may be deleted.
func (r *restorer) vacate(d *destDir, name string, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR && r.opts.DryRun:
		return nil
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return d.unlink(name, 0)
	case r.opts.Delete:
		return r.remove(d, name, st)
	case r.opts.DryRun:
		return r.wouldVacate(d, name)
	}
	err := d.unlink(name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) {
		return inTheWay()
	}
	return err
}

func inTheWay() error {
	return fmt.Errorf("%w: move or remove it, or allow deletions (--delete)", ErrInTheWay)
}

func (r *restorer) wouldVacate(d *destDir, name string) error {
	fd, err := openAt(d.fd, name, dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := (&destDir{r: r, parent: d, name: name, fd: fd}).list()
	if err == nil && len(names) > 0 {
		err = inTheWay()
	}
	return err
}
