package tree

import (
	"bytes"
	"context"
	"io/fs"
	"math/bits"
)

// Change is an entry that two maps don't agree about. Old or New is nil if the entry is in one of them only.
type Change struct {
	Key      uint64
	Name     string
	Old, New []byte
}

// Diff calls fn for every entry in which maps a and b differ, ascending. What the maps share isn't read. If fn returns
// fs.SkipAll, Diff ends and returns nil.
func (n *Nodes) Diff(ctx context.Context, a, b Ref, fn func(Change) error) error {
	l, r := newSide(n, a), newSide(n, b)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if l.skipEqual(r) {
			continue
		}
		if len(l.stack) == 0 && len(r.stack) == 0 {
			return nil
		}
		// A subtree is opened before the other side's item inside of its range is looked at; the larger range first.
		if s := pickSubtree(l, r); s != nil {
			if err := s.open(ctx); err != nil {
				return err
			}
			continue
		}
		if err := emit(l, r, fn); err != nil {
			if err == fs.SkipAll {
				return nil
			}
			return err
		}
	}
}

// side is one of two maps being compared: what is left of it, the first item last.
type side struct {
	nodes *Nodes
	stack []item
}

func newSide(n *Nodes, ref Ref) *side {
	s := &side{nodes: n}
	if ref.Count > 0 {
		s.stack = append(s.stack, item{lo: 0, hi: ^uint64(0), sub: ref})
	}
	return s
}

func (s *side) top() *item {
	if len(s.stack) == 0 {
		return nil
	}
	return &s.stack[len(s.stack)-1]
}

func (s *side) pop() item {
	it := s.stack[len(s.stack)-1]
	s.stack = s.stack[:len(s.stack)-1]
	return it
}

// skipEqual drops the first items if they are the same subtree.
func (s *side) skipEqual(o *side) bool {
	a, b := s.top(), o.top()
	if a == nil || b == nil || a.sub.Count == 0 || !a.sub.Equal(b.sub) {
		return false
	}
	s.pop()
	o.pop()
	return true
}

// pickSubtree gives the side whose first item is to be opened; nil if both are entries or ended.
func pickSubtree(l, r *side) *side {
	a, b := l.top(), r.top()
	aSub, bSub := a != nil && a.sub.Count > 0, b != nil && b.sub.Count > 0
	switch {
	case aSub && bSub:
		switch {
		case a.hi < b.lo:
			return l
		case b.hi < a.lo:
			return r
		case a.hi-a.lo < b.hi-b.lo:
			return r
		}
		return l
	case aSub && (b == nil || a.lo <= b.lo):
		return l
	case bSub && (a == nil || b.lo <= a.lo):
		return r
	}
	return nil
}

// open puts a subtree's parts in its place. A branch is narrowed to the range of its keys first.
func (s *side) open(ctx context.Context) error {
	it := s.pop()
	nd, err := s.nodes.load(ctx, it.sub)
	if err != nil {
		return err
	}
	if nd.isLeaf() {
		for i := len(nd.entries) - 1; i >= 0; i-- {
			s.stack = append(s.stack, entryItem(nd.entries[i]))
		}
		return nil
	}
	if it.lo != nd.lo || it.hi != nd.hi {
		s.stack = append(s.stack, item{lo: nd.lo, hi: nd.hi, sub: it.sub})
		return nil
	}
	for m := nd.bitmap; m != 0; {
		d := uint(bits.Len64(m) - 1)
		m &^= 1 << d
		lo, hi := nd.childSpan(d)
		s.stack = append(s.stack, item{lo: lo, hi: hi, sub: nd.children[bits.OnesCount64(m)]})
	}
	return nil
}

// emit compares the first items, of which the smaller is an entry.
func emit(l, r *side, fn func(Change) error) error {
	a, b := l.top(), r.top()
	order := 0
	switch {
	case a == nil:
		order = 1
	case b == nil:
		order = -1
	default:
		order = compareItems(a, b)
	}
	switch {
	case order < 0:
		e := l.pop().entry
		return fn(Change{Key: e.Key, Name: e.Name, Old: notNil(e.Value)})
	case order > 0:
		e := r.pop().entry
		return fn(Change{Key: e.Key, Name: e.Name, New: notNil(e.Value)})
	}
	x, y := l.pop().entry, r.pop().entry
	if bytes.Equal(x.Value, y.Value) {
		return nil
	}
	return fn(Change{Key: x.Key, Name: x.Name, Old: notNil(x.Value), New: notNil(y.Value)})
}

// compareItems orders items of which at least the smaller is an entry.
func compareItems(a, b *item) int {
	if a.sub.Count > 0 || b.sub.Count > 0 {
		if a.lo < b.lo {
			return -1
		}
		return 1
	}
	return a.entry.compare(b.lo, b.entry.Name)
}

func notNil(p []byte) []byte {
	if p == nil {
		return []byte{}
	}
	return p
}
