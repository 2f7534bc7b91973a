package backing

import "slices"

// loadHints makes nodes of what a process of an earlier mount recorded, in new segments, and then removes the old ones. Nothing of it is referred
// to any more: the newest maxIdle records stay as hints.
func (t *Tree) loadHints() {
	all, remove := t.table.load()
	defer remove()
	all = all[max(0, len(all)-maxIdle):]
	for i := range all {
		t.loadHint(&all[i])
	}
	t.nodes.each(func(n *node) {
		if p := t.nodes.get(n.rec.parent); p != nil {
			p.kids.Add(1)
		}
	})
	t.settle()
}

// loadHint takes over one record; several of one inode are its links.
func (t *Tree) loadHint(s *stored) {
	n := t.nodes.getLocked(s.ino, func() *node { return &node{ino: s.ino} })
	defer n.mu.Unlock()
	if n.gen != s.gen || n.typ != s.typ {
		n.links = nil // the number was used again
	}
	n.gen, n.typ = s.gen, s.typ
	if s.l.parent != 0 && !slices.Contains(n.links, s.l) {
		if n.isDir() {
			n.links = nil
		}
		n.links = append(n.links, s.l)
	}
	t.recordLocked(n)
}

// settle drops or queues what is idle.
func (t *Tree) settle() {
	t.nodes.each(func(n *node) {
		n.mu.Lock()
		idle, nameless := n.idleLocked(), len(n.links) == 0
		n.mu.Unlock()
		switch {
		case idle && nameless:
			t.drop(n.ino, false)
		case idle:
			t.pushIdle(n.ino)
		}
	})
}

// compact moves the living records out of segments that are mostly dead. Cheap when there is nothing to do.
func (t *Tree) compact() {
	if !t.compacting.TryLock() {
		return
	}
	defer t.compacting.Unlock()
	for s := t.table.sparse(); s != nil; s = t.table.sparse() {
		for _, ino := range t.table.living(s) {
			n := t.nodes.getLocked(ino, nil)
			if n == nil {
				continue
			}
			t.rescueLocked(n, s)
			n.mu.Unlock()
		}
		t.table.remove(s)
	}
}

// Locate teaches where an inode was last seen, so that an inode that neither the kernel nor this process knows can be reached.
// What is known already is not changed. The hint is checked when it is used.
func (t *Tree) Locate(ino, parent uint64, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	n := t.nodes.getLocked(ino, func() *node { return &node{ino: ino} })
	var mv kidMove
	if n.rec == nil {
		n.links, n.hint = []link{{parent, name}}, true
		mv = t.recordLocked(n)
	}
	n.mu.Unlock()
	t.moveKid(mv)
	return nil
}

// Parent tells the directory and name an inode is known under. ok is false for the root and for what has no known name.
func (t *Tree) Parent(ino uint64) (parent uint64, name string, ok bool) {
	n := t.nodes.getLocked(ino, nil)
	if n == nil {
		return 0, "", false
	}
	defer n.mu.Unlock()
	if len(n.links) == 0 {
		return 0, "", false
	}
	return n.links[0].parent, n.links[0].name, true
}

// WritableOpen lists the inodes that are open for writing: those that may have pages in the kernel's cache that this process
// hasn't seen.
func (t *Tree) WritableOpen() []uint64 {
	<-t.inherited
	var all []uint64
	t.nodes.each(func(n *node) {
		n.mu.Lock()
		if n.rec.writers > 0 {
			all = append(all, n.ino)
		}
		n.mu.Unlock()
	})
	slices.Sort(all)
	return all
}

// Writers tells how many opens for writing an inode has.
func (t *Tree) Writers(ino uint64) int {
	n := t.nodes.getLocked(ino, nil)
	if n == nil {
		return 0
	}
	defer n.mu.Unlock()
	return int(n.rec.writers)
}
