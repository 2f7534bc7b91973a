package backing

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxIdle bounds the nodes that nobody refers to but that are kept as hints for file handles.
const maxIdle = 1 << 16

// maxLinks bounds the names that a node is known by: they are ways to it, and some will do. A file may have 65,000.
const maxLinks = 16

// link is one name of a node.
type link struct {
	parent uint64
	name   string
}

// node is one known inode.
type node struct {
	ino  uint64
	kids atomic.Int64 // nodes whose first link is in this directory

	mu    sync.Mutex // guards everything below
	gen   uint64
	btime Time
	typ   uint32
	links []link           // names it was seen under, the last first; not all of them
	rec   *record          // of links[0]; references and opens live in it; never nil
	extra map[link]*record // of the other links
	h     [kinds]*handle
	pin   *handle          // keeps an inode without a name, and the root
	fh    *unix.FileHandle // reaches an inode without a known name that needs no pin, since other names keep it
	kept  bool             // its descriptor is in the stash
	hint  bool             // taught by Locate: not dropped for idleness
	gone  bool             // out of the map
}

func (n *node) isDir() bool { return n.typ == unix.S_IFDIR }

// idleLocked says that nobody refers to n.
func (n *node) idleLocked() bool {
	return n.rec.nlookup == 0 && n.rec.readers == 0 && n.rec.writers == 0 && n.kids.Load() == 0
}

// dropHandlesLocked takes all descriptors out of n, for the caller to release.
func (n *node) dropHandlesLocked() []*handle {
	var hs []*handle
	for k, h := range n.h {
		if h != nil {
			hs = append(hs, h)
			n.h[k] = nil
		}
	}
	if n.pin != nil {
		hs = append(hs, n.pin)
		n.pin = nil
	}
	return hs
}

const shards = 64

// nodeMap holds the known inodes.
type nodeMap struct {
	// old has the inodes of an earlier process that aren't in the shards yet; nil: none. While it is there, no node is dropped.
	old atomic.Pointer[inheritance]

	shard [shards]struct {
		sync.RWMutex
		m map[uint64]*node
	}
	idle struct {
		sync.Mutex
		queue []uint64 // inode numbers, oldest first; entries may be idle no more
	}
}

func (m *nodeMap) init() {
	for i := range m.shard {
		m.shard[i].m = map[uint64]*node{}
	}
}

func (m *nodeMap) get(ino uint64) *node {
	s := &m.shard[ino%shards]
	s.RLock()
	n := s.m[ino]
	s.RUnlock()
	if n == nil {
		n = m.inherit(ino)
	}
	return n
}

// getLocked returns the node of ino with its lock held; it makes one if make is set, else it may return nil.
func (m *nodeMap) getLocked(ino uint64, make func() *node) *node {
	m.inherit(ino)
	s := &m.shard[ino%shards]
	s.Lock()
	defer s.Unlock()
	n := s.m[ino]
	if n == nil && make != nil {
		n = make()
		s.m[ino] = n
	}
	if n != nil {
		n.mu.Lock()
	}
	return n
}

func (m *nodeMap) each(fn func(*node)) {
	for i := range m.shard {
		s := &m.shard[i]
		s.RLock()
		all := make([]*node, 0, len(s.m))
		for _, n := range s.m {
			all = append(all, n)
		}
		s.RUnlock()
		for _, n := range all {
			fn(n)
		}
	}
}

// learn records that dir/name is the inode a, and adds refs kernel references. dir 0: it has no name (or is the root).
func (t *Tree) learn(a Attr, dir uint64, name string, refs uint64) *node {
	n := t.nodes.getLocked(a.Ino, func() *node { return &node{ino: a.Ino} })
	var stale []*handle
	fresh := n.rec == nil
	if !fresh && n.differsLocked(a) {
		// The number was reused behind our back: what was known belongs to an inode that is gone.
		stale, fresh = n.dropHandlesLocked(), true
		n.links, n.hint = nil, false
	}
	n.gen, n.btime, n.typ = a.Gen, a.Btime, a.Mode&unix.S_IFMT
	if l := (link{dir, name}); dir != 0 && !slices.Contains(n.links, l) {
		if n.isDir() {
			n.links = nil // a directory has one name
		}
		n.links, fresh = slices.Insert(n.links, 0, l), true // what was seen last is the surest
		if n.pin != nil && n != t.root {
			stale = append(stale, n.pin)
			n.pin = nil
		}
		n.fh = nil
	}
	unstash := len(n.links) > 0 && n.kept
	n.kept = n.kept && !unstash
	var mv kidMove
	if fresh {
		mv = t.recordLocked(n)
	}
	if refs > 0 {
		t.table.store(func() { n.rec.nlookup += refs })
	}
	n.mu.Unlock()
	t.moveKid(mv)
	t.releaseAll(stale)
	if unstash {
		t.stash.Unstash(a.Ino)
	}
	if t.table.grown.Load() && t.settled() && t.table.grown.Swap(false) {
		t.compact()
	}
	return n
}

// differsLocked says that a is another inode than n, with the same number.
func (n *node) differsLocked(a Attr) bool {
	return n.gen != a.Gen || n.btime != a.Btime && n.btime != Time{}
}

// releaseAll closes descriptors that a node has dropped.
func (t *Tree) releaseAll(hs []*handle) {
	t.cache.forget(hs)
	for _, h := range hs {
		h.release()
	}
}

// kidMove is a change of a first link's directory, to be counted once the node is unlocked.
type kidMove struct{ from, to uint64 }

// recordLocked brings n's records in line with its links and generation: one each, or one without a name.
func (t *Tree) recordLocked(n *node) kidMove {
	var first link
	var rest []link
	n.links = n.links[:min(len(n.links), maxLinks)]
	if len(n.links) > 0 {
		first, rest = n.links[0], n.links[1:]
	}
	mv := kidMove{to: first.parent}
	if n.rec != nil {
		mv.from = n.rec.parent
	}
	if n.rec == nil || !n.rec.is(first) || n.rec.gen != n.gen || n.rec.typ != n.typ {
		n.rec = t.table.add(n.ino, n.gen, first, n.typ, n.rec)
	}
	for l, r := range n.extra {
		if !slices.Contains(rest, l) {
			t.table.kill(r)
			delete(n.extra, l)
		}
	}
	for _, l := range rest {
		if n.extra == nil {
			n.extra = map[link]*record{}
		}
		if n.extra[l] == nil {
			n.extra[l] = t.table.add(n.ino, n.gen, l, n.typ, nil)
		}
	}
	return mv
}

// rescueLocked moves n's records out of a segment that is about to be removed.
func (t *Tree) rescueLocked(n *node, s *segment) {
	if t.table.holds(s, n.rec) {
		n.rec = t.table.add(n.ino, n.gen, link{n.rec.parent, n.rec.name()}, n.typ, n.rec)
	}
	for l, r := range n.extra {
		if t.table.holds(s, r) {
			n.extra[l] = t.table.add(n.ino, n.gen, l, n.typ, r)
		}
	}
}

func (t *Tree) moveKid(mv kidMove) {
	if mv.from == mv.to {
		return
	}
	if p := t.nodes.get(mv.to); p != nil && mv.to != 0 {
		p.kids.Add(1)
	}
	if p := t.nodes.get(mv.from); p != nil && mv.from != 0 && p.kids.Add(-1) == 0 {
		t.pushIdle(mv.from)
	}
}

// unlinkName takes one name from a node, after the backing did. If none is left and somebody refers to it, the node is
// pinned by fd, or reached by its handle if other names keep the inode; else fd is closed.
func (t *Tree) unlinkName(after Attr, l link, fd int) {
	n := t.nodes.getLocked(after.Ino, nil)
	if n == nil {
		unix.Close(fd)
		return
	}
	n.links = slices.DeleteFunc(n.links, func(x link) bool { return x == l })
	idle := n.idleLocked()
	if len(n.links) == 0 && n.pin == nil && !idle {
		if after.Nlink > 0 && t.creds != nil && n.rec.readers+n.rec.writers == 0 {
			n.fh = fileHandle(fd)
		}
		if n.fh == nil {
			n.pin, fd = newHandle(n, kindPath, fd), -1
		}
	}
	mv := t.recordLocked(n)
	n.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
	t.moveKid(mv)
	if idle {
		t.drop(after.Ino, false)
	}
}

// pushIdle remembers that ino may be idle and drops what has been idle longest.
func (t *Tree) pushIdle(ino uint64) {
	q := &t.nodes.idle
	q.Lock()
	q.queue = append(q.queue, ino)
	var old []uint64
	if len(q.queue) > maxIdle {
		old = slices.Clone(q.queue[:maxIdle/8])
		q.queue = append(q.queue[:0], q.queue[maxIdle/8:]...)
	}
	q.Unlock()
	for _, ino := range old {
		t.drop(ino, true)
	}
}

// drop forgets an idle node. A node with a name is kept as a hint unless named is set.
func (t *Tree) drop(ino uint64, named bool) {
	if t.nodes.old.Load() != nil {
		return // a node may have children that aren't counted yet; settle looks again
	}
	s := &t.nodes.shard[ino%shards]
	s.Lock()
	n := s.m[ino]
	if n == nil {
		s.Unlock()
		return
	}
	n.mu.Lock()
	if !n.idleLocked() || n == t.root || len(n.links) > 0 && (!named || n.hint) {
		n.mu.Unlock()
		s.Unlock()
		return
	}
	delete(s.m, ino)
	n.gone = true
	hs, parent, kept := n.dropHandlesLocked(), n.rec.parent, n.kept
	t.table.kill(n.rec)
	for _, r := range n.extra {
		t.table.kill(r)
	}
	n.mu.Unlock()
	s.Unlock()
	t.releaseAll(hs)
	if kept {
		t.stash.Unstash(ino)
	}
	t.moveKid(kidMove{from: parent})
}
