package model

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// cross changes names over the borders of subtrees. All workers rest.
func (r *Run) cross() error {
	switch r.rng.IntN(4) {
	case 0:
		return r.crossLink()
	case 1:
		return r.dropShared()
	default:
		return r.crossRename()
	}
}

// crossLink gives a worker's file one more name in the shared directory.
func (r *Run) crossLink() error {
	w := r.workers[r.rng.IntN(len(r.workers))]
	p, ok := w.pick(func(n *node) bool { return !n.isDir() })
	if !ok {
		return nil
	}
	name := fmt.Sprintf("l%d", r.rng.IntN(40))
	err := os.Link(p.full(), r.dir+"/shared/"+name)
	if r.shared.entries[name] != nil {
		return expect("link "+p.full()+" to shared/"+name, err, unix.EEXIST)
	}
	if err != nil {
		return err
	}
	r.shared.entries[name] = p.node
	r.shared.touch()
	p.node.links++
	return nil
}

func (r *Run) dropShared() error {
	names := r.shared.names()
	if len(names) == 0 {
		return nil
	}
	name := names[r.rng.IntN(len(names))]
	if err := unix.Unlink(r.dir + "/shared/" + name); err != nil {
		return &os.PathError{Op: "unlink", Path: "shared/" + name, Err: err}
	}
	r.shared.entries[name].links--
	delete(r.shared.entries, name)
	r.shared.touch()
	return nil
}

// crossRename moves an entry, with all below it, from one worker's subtree into another's.
func (r *Run) crossRename() error {
	from := r.workers[r.rng.IntN(len(r.workers))]
	to := r.workers[r.rng.IntN(len(r.workers))]
	src, ok := from.pick(func(n *node) bool { return from != to && selfContained(n, from) })
	if !ok {
		return nil
	}
	dst := to.freePlace()
	if err := os.Rename(src.full(), dst.full()); err != nil {
		return err
	}
	delete(src.dir.entries, src.name)
	dst.dir.entries[dst.name] = src.node
	src.dir.touch()
	dst.dir.touch()
	return nil
}

// selfContained: no name outside of n refers to an inode in it, and nobody has one of them open.
func selfContained(n *node, w *worker) bool {
	inside := map[*node]int{}
	count(n, inside)
	for c, k := range inside {
		if !c.isDir() && c.links != k {
			return false
		}
		for _, h := range w.open {
			if h.node == c {
				return false
			}
		}
	}
	return true
}

func count(n *node, into map[*node]int) {
	into[n]++
	for _, c := range n.entries {
		count(c, into)
	}
}
