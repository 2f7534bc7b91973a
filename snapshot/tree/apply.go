package tree

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sort"
)

// ErrOrder says that edits or entries didn't ascend by (key, name), or that one came twice.
var ErrOrder = errors.New("entries of a map out of order")

// Edit changes one entry of a map: sets its value, or deletes it (which does nothing if it isn't there).
type Edit struct {
	Entry
	Delete bool
}

// Compare orders edits as Apply wants them.
func (e Edit) Compare(o Edit) int { return e.compare(o.Key, o.Name) }

// Apply gives the map ref with the edits made, which ascend strictly. Each node that changes is written once.
// The map is only readable when what put stored is.
func (n *Nodes) Apply(ctx context.Context, put Putter, ref Ref, edits []Edit) (Ref, error) {
	if len(edits) == 0 {
		return ref, nil
	}
	return n.apply(&assembler{ctx: ctx, nodes: n, put: put}, ref, edits)
}

// ApplyBelow is Apply to a map without its entries from key cut on. What is cut off isn't read.
func (n *Nodes) ApplyBelow(ctx context.Context, put Putter, ref Ref, cut uint64, edits []Edit) (Ref, error) {
	return n.apply(&assembler{ctx: ctx, nodes: n, put: put, cut: cut, cuts: true}, ref, edits)
}

func (n *Nodes) apply(a *assembler, ref Ref, edits []Edit) (Ref, error) {
	for i := range edits {
		if i > 0 && edits[i-1].Compare(edits[i]) >= 0 {
			return Ref{}, ErrOrder
		}
		if err := checkEntry(edits[i].Entry); err != nil {
			return Ref{}, err
		}
	}
	items, err := a.update(ref, edits)
	if err != nil {
		return Ref{}, err
	}
	return a.assemble(items)
}

// update gives the parts of a changed map. What has more than MaxLeaf entries below the root is written already.
func (a *assembler) update(ref Ref, edits []Edit) ([]item, error) {
	if ref.Count == 0 {
		return merge(nil, edits), nil
	}
	nd, err := a.nodes.load(a.ctx, ref)
	if err != nil {
		return nil, err
	}
	if nd.isLeaf() {
		return merge(a.below(nd.entries), edits), nil
	}
	before, edits := splitEdits(edits, func(e *Edit) bool { return e.Key < nd.lo })
	inside, after := splitEdits(edits, func(e *Edit) bool { return e.Key <= nd.hi })
	items := merge(nil, before)
	for d := uint(0); d < 64; d++ {
		var mine []Edit
		lo, hi := nd.childSpan(d)
		mine, inside = splitEdits(inside, func(e *Edit) bool { return e.Key <= hi })
		var child Ref
		if nd.bitmap&(1<<d) != 0 && !(a.cuts && lo >= a.cut) {
			child = nd.children[bits.OnesCount64(nd.bitmap&(1<<d-1))]
		}
		if len(mine) == 0 && !(a.cuts && child.Count > 0 && hi >= a.cut) {
			if child.Count > 0 {
				items = append(items, item{lo: lo, hi: hi, sub: child})
			}
			continue
		}
		if items, err = a.updateChild(items, child, lo, hi, mine); err != nil {
			return nil, err
		}
	}
	return append(items, merge(nil, after)...), nil
}

// below gives the entries that aren't cut off.
func (a *assembler) below(entries []Entry) []Entry {
	if !a.cuts {
		return entries
	}
	n := sort.Search(len(entries), func(i int) bool { return entries[i].Key >= a.cut })
	return entries[:n]
}

func (a *assembler) updateChild(items []item, child Ref, lo, hi uint64, edits []Edit) ([]item, error) {
	parts, err := a.update(child, edits)
	if err != nil {
		return nil, err
	}
	if count(parts) <= MaxLeaf {
		return append(items, parts...), nil // may become part of a leaf that covers more
	}
	sub, err := a.assemble(parts)
	return append(items, item{lo: lo, hi: hi, sub: sub}), err
}

// splitEdits splits off the leading edits for which in is true.
func splitEdits(edits []Edit, in func(*Edit) bool) (head, tail []Edit) {
	n := 0
	for n < len(edits) && in(&edits[n]) {
		n++
	}
	return edits[:n], edits[n:]
}

// merge makes edits in the entries of a leaf.
func merge(entries []Entry, edits []Edit) []item {
	items := make([]item, 0, len(entries)+len(edits))
	for _, ed := range edits {
		for len(entries) > 0 && entries[0].compare(ed.Key, ed.Name) < 0 {
			items = append(items, entryItem(entries[0]))
			entries = entries[1:]
		}
		if len(entries) > 0 && entries[0].compare(ed.Key, ed.Name) == 0 {
			entries = entries[1:]
		}
		if !ed.Delete {
			items = append(items, entryItem(ed.Entry))
		}
	}
	for _, e := range entries {
		items = append(items, entryItem(e))
	}
	return items
}

// Builder makes a map of entries that come in ascending order, in memory bounded by some thousand entries wherever keys are
// dense. It gives the same map as Apply does.
type Builder struct {
	a     assembler
	done  []item // parts before the open group
	group []item // entries that agree in all digits above groupLevel
	last  Entry
}

const groupLevel = 1

// NewBuilder returns a Builder of an empty map.
func (n *Nodes) NewBuilder(ctx context.Context, put Putter) *Builder {
	return &Builder{a: assembler{ctx: ctx, nodes: n, put: put}}
}

// Add adds an entry. The Builder keeps its value.
func (b *Builder) Add(e Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if len(b.done)+len(b.group) > 0 && b.last.compare(e.Key, e.Name) >= 0 {
		return ErrOrder
	}
	if len(b.group) > 0 {
		if _, hi := span(b.last.Key, groupLevel); e.Key > hi {
			if err := b.close(); err != nil {
				return err
			}
		}
	}
	b.last = e
	b.group = append(b.group, entryItem(e))
	return nil
}

// close writes the open group if nothing outside of it can become part of its nodes.
func (b *Builder) close() error {
	if len(b.group) <= MaxLeaf {
		b.done = append(b.done, b.group...)
	} else {
		sub, err := b.a.assemble(b.group)
		if err != nil {
			return err
		}
		lo, hi := span(b.last.Key, groupLevel)
		b.done = append(b.done, item{lo: lo, hi: hi, sub: sub})
	}
	clear(b.group)
	b.group = b.group[:0]
	return nil
}

// Finish gives the map.
func (b *Builder) Finish() (Ref, error) {
	items := slices.Concat(b.done, b.group)
	return b.a.assemble(items)
}
