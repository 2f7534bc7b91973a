package tree

import (
	"context"
	"fmt"
	"slices"

	"graphvol/chunkstore"
)

// MaxValue is the greatest length in bytes of a value or a name in a map.
const MaxValue = 256 << 10

// item is a part of a map that is being put together: an entry, or a whole subtree that alone has the keys [lo, hi].
type item struct {
	lo, hi uint64
	entry  Entry
	sub    Ref // not an entry if its Count isn't 0
}

func entryItem(e Entry) item { return item{lo: e.Key, hi: e.Key, entry: e} }

func count(items []item) (n uint64) {
	for i := range items {
		n += max(items[i].sub.Count, 1)
	}
	return n
}

// assembler writes the nodes of one changed map.
type assembler struct {
	ctx   context.Context
	nodes *Nodes
	put   Putter
	buf   []byte
	cut   uint64 // if cuts: entries of the old map from this key on are dropped
	cuts  bool
}

// assemble writes the tree of items, which ascend. The result depends on the set of entries alone.
func (a *assembler) assemble(items []item) (Ref, error) {
	if len(items) == 0 {
		return Ref{}, nil
	}
	n := count(items)
	if len(items) == 1 && items[0].sub.Count > 0 {
		return items[0].sub, nil
	}
	first, last := &items[0], &items[len(items)-1]
	if n <= MaxLeaf || first.lo == last.hi {
		entries, err := a.expand(items)
		if err != nil {
			return Ref{}, err
		}
		if leafFits(entries) {
			a.buf = encodeLeaf(a.buf[:0], entries)
			return a.write(a.buf, n)
		}
		items = items[:0:0]
		for _, e := range entries {
			items = append(items, entryItem(e))
		}
		first, last = &items[0], &items[len(items)-1]
	}
	return a.branch(items, splitLevel(first.lo, last.hi), n)
}

func (a *assembler) branch(items []item, level int, n uint64) (Ref, error) {
	key, bitmap := items[0].lo, uint64(0)
	var children []Ref
	for len(items) > 0 {
		d := digit(items[0].lo, level)
		end := 1
		for end < len(items) && digit(items[end].lo, level) == d {
			end++
		}
		c, err := a.assemble(items[:end])
		if err != nil {
			return Ref{}, err
		}
		bitmap |= 1 << d
		children = append(children, c)
		items = items[end:]
	}
	a.buf = encodeBranch(a.buf[:0], level, key, bitmap, children)
	return a.write(a.buf, n)
}

func (a *assembler) write(p []byte, n uint64) (Ref, error) {
	if len(p) <= InlineMax {
		return Ref{Count: n, Inline: slices.Clone(p)}, nil
	}
	id, err := a.put.Put(p)
	if err != nil {
		return Ref{}, fmt.Errorf("store tree node: %w", err)
	}
	a.nodes.keep(&cached{id: id, raw: slices.Clone(p), bytes: len(p) + 128})
	return Ref{Count: n, ID: id}, nil
}

// expand gives the entries of items, those of subtrees too.
func (a *assembler) expand(items []item) ([]Entry, error) {
	entries := make([]Entry, 0, len(items))
	for i := range items {
		if items[i].sub.Count == 0 {
			entries = append(entries, items[i].entry)
			continue
		}
		err := a.nodes.ascend(a.ctx, items[i].sub, 0, func(e Entry) error {
			entries = append(entries, e)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func checkEntry(e Entry) error {
	if len(e.Value) > MaxValue || len(e.Name) > MaxValue {
		return fmt.Errorf("store tree entry %d: value of %d bytes, at most %d: %w", e.Key, max(len(e.Value), len(e.Name)),
			MaxValue, chunkstore.ErrTooLarge)
	}
	return nil
}
