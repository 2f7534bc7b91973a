package backing

import (
	"bytes"
	"math/bits"
	"os"
	"slices"
)

// inheritance is what the server before this one on the same mount knew: its segments, taken over as they are, and where in them an inode's
// records are. Finding them takes some milliseconds for a million, making nodes of them much longer; and clients wait. So a node is made when it
// is asked for, and those that nobody asks for meanwhile are made in the background.
type inheritance struct {
	table *table
	recs  []*record // oldest first
	heads []int32   // a hash table: the oldest record of an inode, plus one
	next  []int32   // of each record, the next one of the same hash, plus one
	shift int
}

// adopt makes the segments of an earlier process this one's, without changing them. nil: there are none.
func (tb *table) adopt() *inheritance {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	h := &inheritance{table: tb}
	paths := tb.files()
	h.recs = make([]*record, 0, len(paths)*(segmentSize/80)) // 80 bytes are a record with a usual name
	for _, path := range paths {
		s, err := tb.openSegment(path)
		if err != nil {
			tb.log.Warn("node table: a segment can't be read", "path", path, "err", err)
			continue
		}
		if s == nil {
			continue
		}
		s.used = s.each(func(r *record) {
			if r.dead == 0 {
				h.recs = append(h.recs, r)
				s.live += int(r.length)
			}
		})
		// What a process that was killed left of a record must not follow one that is shorter. Storing to a mapping may wait for the disk, so
		// nothing is stored that is there already.
		if rest := s.mem[s.used:min(s.used+recordSize(maxName), len(s.mem))]; len(bytes.Trim(rest, "\x00")) > 0 {
			tb.store(func() { clear(rest) })
		}
		tb.segs = append(tb.segs, s)
	}
	if len(h.recs) == 0 {
		return nil
	}
	h.hash()
	return h
}

// openSegment maps a segment that is there. One that is short was never written to: its process died while it was made.
func (tb *table) openSegment(path string) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < segmentSize {
		return nil, os.Remove(path)
	}
	return tb.mapSegment(f)
}

func (h *inheritance) hash() {
	width := bits.Len(uint(2 * len(h.recs)))
	h.shift = 64 - width
	h.heads, h.next = make([]int32, 1<<width), make([]int32, len(h.recs))
	for i, r := range slices.Backward(h.recs) {
		at := h.slot(r.ino)
		h.next[i], h.heads[at] = h.heads[at], int32(i+1)
	}
}

func (h *inheritance) slot(ino uint64) uint64 { return ino * 0x9e3779b97f4a7c15 >> h.shift }

// node makes the node of an inode; nil if there is no record of it. Of what contradicts itself, because the process was killed between two
// records, the newest counts.
func (h *inheritance) node(ino uint64) *node {
	all := h.records(ino)
	if len(all) == 0 {
		return nil
	}
	last := all[len(all)-1]
	n := &node{ino: ino, gen: last.gen, typ: last.typ}
	for _, r := range all {
		l := link{r.parent, r.name()}
		if r.parent == 0 || r.gen != n.gen || r.typ != n.typ || slices.Contains(n.links, l) {
			continue
		}
		if n.isDir() {
			n.links, n.rec = nil, nil // a directory has one name
		}
		n.links = append(n.links, l)
		switch {
		case n.rec == nil:
			n.rec = r
		case n.extra == nil:
			n.extra = map[link]*record{l: r}
		default:
			n.extra[l] = r
		}
	}
	if n.rec == nil {
		n.rec = last
	}
	h.mergeCounts(n, all)
	return n
}

// mergeCounts leaves what the kernel knows of n in one record, and none that says nothing more.
func (h *inheritance) mergeCounts(n *node, all []*record) {
	for _, r := range all {
		if r == n.rec {
			continue
		}
		h.table.store(func() {
			n.rec.nlookup = max(n.rec.nlookup, r.nlookup)
			n.rec.readers, n.rec.writers = max(n.rec.readers, r.readers), max(n.rec.writers, r.writers)
		})
	}
	for _, r := range all {
		if r != n.rec && n.extra[link{r.parent, r.name()}] != r {
			h.table.kill(r)
		}
	}
}

// records lists the records of an inode, oldest first.
func (h *inheritance) records(ino uint64) (all []*record) {
	for i := h.heads[h.slot(ino)]; i > 0; i = h.next[i-1] {
		if r := h.recs[i-1]; r.ino == ino && r.dead == 0 && r.whole() {
			all = append(all, r)
		}
	}
	return all
}

// inherit returns the node of ino, made of what an earlier process recorded if that has not been done yet; nil if there is none.
func (m *nodeMap) inherit(ino uint64) *node {
	if m.old.Load() == nil {
		return nil
	}
	n, parent, made := m.inheritOne(ino, 0)
	for made { // a new node is one more child of its parent, which has to be there for that
		_, parent, made = m.inheritOne(parent, 1)
	}
	return n
}

// inheritOne makes the node of ino if there is none, and adds to its children.
func (m *nodeMap) inheritOne(ino uint64, kids int64) (n *node, parent uint64, made bool) {
	s := &m.shard[ino%shards]
	s.Lock()
	defer s.Unlock()
	if n = s.m[ino]; n == nil {
		h := m.old.Load()
		if ino == 0 || h == nil {
			return nil, 0, false
		}
		if n = h.node(ino); n == nil {
			return nil, 0, false
		}
		s.m[ino], parent, made = n, n.rec.parent, true
	}
	n.kids.Add(kids)
	return n, parent, made
}

// inheritAll makes the nodes that nobody has asked for. Afterwards nodes are dropped and records moved as always.
func (t *Tree) inheritAll() {
	defer close(t.inherited)
	h := t.nodes.old.Load()
	if h == nil {
		return
	}
	for _, r := range h.recs {
		if t.closing.Load() {
			return
		}
		t.nodes.inherit(r.ino)
	}
	t.nodes.old.Store(nil)
	t.settle() // takes every shard's lock: whoever has seen h is done with it
}

// settled tells whether all that was inherited has become nodes.
func (t *Tree) settled() bool {
	select {
	case <-t.inherited:
		return true
	default:
		return false
	}
}
