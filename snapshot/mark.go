package snapshot

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// marks is the set of the chunks that snapshots refer to. It takes about 100 bytes for a node of a tree and 16 for a
// chunk of data. Of the latter it keeps 8 bytes of the id: who is taken for marked by mistake, once in 2^64, is kept.
// Of nodes it keeps all, because what is below a node that was seen isn't looked at. It is safe for concurrent use; that a node is
// marked then says that somebody marks what is below, or has done so.
type marks struct {
	nodes nodeSet // nodes and root records
	data  [256]struct {
		sync.Mutex
		shortSet
	}
}

type nodeSet struct {
	sync.Mutex
	ids map[chunkstore.ID]struct{}
}

func newMarks() *marks {
	m := &marks{}
	m.nodes.ids = make(map[chunkstore.ID]struct{})
	return m
}

// addNode tells whether the node is new.
func (m *marks) addNode(id chunkstore.ID) bool {
	m.nodes.Lock()
	defer m.nodes.Unlock()
	before := len(m.nodes.ids)
	m.nodes.ids[id] = struct{}{}
	return len(m.nodes.ids) > before
}

func (m *marks) addData(id chunkstore.ID) {
	s := &m.data[id[0]]
	s.Lock()
	defer s.Unlock()
	s.add(shortKey(id))
}

func (m *marks) isNode(id chunkstore.ID) bool {
	m.nodes.Lock()
	defer m.nodes.Unlock()
	_, ok := m.nodes.ids[id]
	return ok
}

func (m *marks) has(id chunkstore.ID) bool {
	s := &m.data[id[0]]
	s.Lock()
	ok := s.shortSet.has(shortKey(id))
	s.Unlock()
	return ok || m.isNode(id)
}

// len is the number of different chunks.
func (m *marks) len() int64 {
	m.nodes.Lock()
	n := len(m.nodes.ids)
	m.nodes.Unlock()
	for i := range m.data {
		s := &m.data[i]
		s.Lock()
		n += s.n
		s.Unlock()
	}
	return int64(n)
}

// shortKey is never 0.
func shortKey(id chunkstore.ID) uint64 { return max(1, binary.LittleEndian.Uint64(id[8:])) }

// shortSet is a set of evenly distributed numbers that aren't 0: a table that is filled to three quarters at most.
type shortSet struct {
	slots []uint64 // 0: free; the length is a power of two
	n     int
}

// find gives the slot that has k, or the free one where it belongs.
func (s *shortSet) find(k uint64) int {
	mask := len(s.slots) - 1
	i := int(k) & mask
	for s.slots[i] != 0 && s.slots[i] != k {
		i = (i + 1) & mask
	}
	return i
}

func (s *shortSet) has(k uint64) bool { return s.n > 0 && s.slots[s.find(k)] == k }

func (s *shortSet) add(k uint64) bool {
	if s.has(k) {
		return false
	}
	if 4*(s.n+1) > 3*len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(8, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				s.slots[s.find(o)] = o
			}
		}
	}
	s.slots[s.find(k)] = k
	s.n++
	return true
}

// neededRoots gives the roots of all snapshots that can be read or that a running seal builds on, with their names.
//
// The order is what makes it complete. A reader or a seal pins a snapshot and then looks whether the catalogue still
// has it; so who isn't seen in the second look at the pins finds the snapshot gone, if the catalogue was without it
// here. The first look is for a seal that ends in between: its parent, if deleted, is in neither of the later looks, but
// its own snapshot refers to the parent's chunks. Within chunkstore.Store.Exclusive no seal can begin and end
// after the first look, since it must put its root. Without Exclusive the roots are as of some moment, which is good
// enough for marking ahead.
func (r *Repo) neededRoots() (map[chunkstore.ID]string, error) {
	roots := make(map[chunkstore.ID]string)
	addPins := func() {
		for _, id := range r.pinnedRoots() {
			if _, ok := roots[id]; !ok {
				roots[id] = "in use that was deleted"
			}
		}
	}
	addPins()
	snaps, err := r.Snapshots()
	if err != nil {
		return nil, err
	}
	addPins()
	for _, s := range snaps {
		if s.State == index.StateComplete {
			roots[s.Root] = s.Name
		}
	}
	return roots, nil
}

// markers is how many snapshots are walked at the same time: most of the time of one goes by waiting for the disk.
const markers = 4

// marker marks what snapshots need.
type marker struct {
	*marks
	repo  *Repo
	nodes *tree.Nodes // of its own: each node is read once, which would only empty the readers' cache
}

func (r *Repo) newMarker() *marker {
	return &marker{marks: newMarks(), repo: r, nodes: tree.NewNodes(r.store, 0)}
}

// needed marks everything that is needed now and tells whether that was more than before. An error means that something is
// damaged, so that not all that is needed could be marked.
func (m *marker) needed(ctx context.Context) (more bool, err error) {
	roots, err := m.repo.neededRoots()
	if err != nil {
		return false, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(markers)
	for id, name := range roots {
		if m.isNode(id) {
			continue
		}
		more = true
		g.Go(func() error {
			if err := m.snapshot(gctx, id); err != nil {
				return fmt.Errorf("find out what snapshot %s needs: %w", name, err)
			}
			return nil
		})
	}
	// Before all are done none is: a tree may have been left to the walk of another that has a part of it too.
	return more, g.Wait()
}

func (m *marker) snapshot(ctx context.Context, id chunkstore.ID) error {
	p, err := m.repo.store.Get(ctx, id, nil)
	if err != nil {
		return err
	}
	root, err := tree.DecodeRoot(p)
	if err != nil {
		return err
	}
	w := reach{
		nodes:   m.nodes,
		node:    m.addNode,
		data:    m.addData,
		damaged: func(err error) error { return err },
	}
	if err := w.tree(ctx, root); err != nil {
		return err
	}
	m.addNode(id) // last: all below it is marked, or another walk is about to
	return nil
}
