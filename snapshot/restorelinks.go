package snapshot

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// linkSet is an inode with several names, as far as they are restored.
type linkSet struct {
	ino   uint64
	names []linkName
}

type linkName struct {
	dir  *destDir
	name string
	id   fileID // what has the name in the destination; zero: nothing
	n    uint64 // how many names that has
}

// addLink notes a name. Its directory, and those above, get their attributes after step 2.
func (r *restorer) addLink(d *destDir, e tree.Dirent) {
	set := r.links[e.Ino]
	if set == nil {
		set = &linkSet{ino: e.Ino}
		r.links[e.Ino] = set
	}
	set.names = append(set.names, linkName{dir: d, name: e.Name})
	for ; d.parent != nil && !d.late; d = d.parent {
		d.late = true
		r.late = append(r.late, d)
	}
}

// restoreLinks is step 2.
func (r *restorer) restoreLinks() {
	for _, set := range r.links {
		if r.stopped() {
			return
		}
		r.submit(func() {
			if !r.stopped() {
				r.linked(set)
			}
		})
	}
}

// linked restores an inode under one of its names, and links the others to it.
func (r *restorer) linked(set *linkSet) {
	if err := set.look(); err != nil {
		set.names[0].dir.problem(set.names[0].name, err)
		return
	}
	links := set.choose()
	first := &set.names[0]
	var p RestoreProblem
	err := first.dir.with(func(d *destDir) error {
		in, err := r.from.Inode(r.ctx, set.ino)
		if err != nil {
			return unreadable(err)
		}
		p = r.inode(d, first.name, &in, links)
		return nil
	})
	if err != nil {
		p.Err = err
	}
	p.at = destName{first.dir, first.name}
	if errors.Is(p.Err, errSkipped) {
		return
	}
	r.problem(p)
	if p.Err != nil {
		r.unlinkDamaged(set, p, links > 0)
		return
	}
	for i := range set.names[1:] {
		l := &set.names[1+i]
		l.dir.problem(l.name, r.link(first, l))
	}
}

func (l *linkName) path() string { return l.dir.path(l.name) }

// look sees what has the names.
func (s *linkSet) look() error {
	for i := range s.names {
		l := &s.names[i]
		err := l.dir.with(func(d *destDir) error {
			st, ok, err := d.stat(l.name)
			if ok && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				l.id, l.n = idOf(&st), uint64(st.Nlink)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// choose puts the name first under which the inode is restored, and gives the number of names that a file which is there must have to
// be kept: all of them are among those that are restored, so that nobody else's file is changed.
func (s *linkSet) choose() (links uint64) {
	count := make(map[fileID]uint64)
	for _, l := range s.names {
		count[l.id]++
	}
	for i, l := range s.names {
		if l.n > 0 && count[l.id] == l.n {
			s.names[0], s.names[i] = s.names[i], s.names[0]
			return l.n
		}
	}
	return 0
}

// unlinkDamaged takes a file that couldn't be restored from its other names, so that it doesn't look whole under them.
func (r *restorer) unlinkDamaged(set *linkSet, p RestoreProblem, inPlace bool) {
	first := set.names[0]
	for _, l := range set.names[1:] {
		err := p.Err
		if p.Kept != "" && inPlace && l.id == first.id {
			gone := l.dir.with(func(d *destDir) error { return d.unlink(l.name, 0) })
			err = errors.Join(err, gone)
		}
		r.problem(RestoreProblem{at: destName{l.dir, l.name}, Kept: p.Kept, Err: err})
	}
}

func (r *restorer) link(first, l *linkName) error {
	return first.dir.with(func(from *destDir) error {
		return l.dir.with(func(to *destDir) error {
			a, ok, err := from.stat(first.name)
			if err == nil && !ok && !r.opts.DryRun {
				err = unix.ENOENT
			}
			if err != nil {
				return fmt.Errorf("link to %s: %w", first.path(), err)
			}
			b, there, err := to.stat(l.name)
			if err != nil || ok && there && idOf(&a) == idOf(&b) {
				return err
			}
			if there {
				if err := r.vacate(to, l.name, &b); err != nil {
					return err
				}
			}
			if r.opts.DryRun {
				return nil
			}
			if err := unix.Linkat(from.fd, first.name, to.fd, l.name, 0); err != nil {
				return fmt.Errorf("link to %s: %w", first.path(), err)
			}
			return nil
		})
	})
}

// finishDirs is step 3: attributes, those of the deepest directories first.
func (r *restorer) finishDirs() {
	slices.SortStableFunc(r.late, func(a, b *destDir) int { return b.depth() - a.depth() })
	for _, d := range r.late {
		err := d.with(func(again *destDir) error {
			again.finish()
			return nil
		})
		d.problem(".", err)
	}
	r.root.finish()
}

func (d *destDir) depth() (n int) {
	for ; d.parent != nil; d = d.parent {
		n++
	}
	return n
}
