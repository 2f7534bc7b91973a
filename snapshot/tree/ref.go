package tree

import (
	"bytes"
	"encoding/binary"

	"graphvol/chunkstore"
)

// InlineMax is the greatest length in bytes of a node that lies in its Ref instead of in a chunk.
const InlineMax = 256

// Ref refers to a map: by the id of its root node, or, if the root node is small, by holding it.
// The zero Ref is the empty map. Two Refs to maps with the same entries are equal.
type Ref struct {
	Count  uint64        // entries in the map
	ID     chunkstore.ID // of the root node; zero if it is in Inline
	Inline []byte        // the root node, of at most InlineMax bytes; never written to

	// Of a branch's child: 1 + the branch's level, and the lowest key that the child may have. Else 0.
	under uint8
	first uint64
}

// Equal tells whether both refer to the same entries.
func (r Ref) Equal(o Ref) bool {
	return r.Count == o.Count && r.ID == o.ID && bytes.Equal(r.Inline, o.Inline)
}

// mayBe refuses a node in the place of a branch's child whose keys don't belong there. Without that, a branch could have one node as each of
// its children, and so on down: a few kilobytes that are 2^60 entries for whoever lists them.
func (r Ref) mayBe(n *node) error {
	if r.under == 0 {
		return nil
	}
	lo, hi := span(r.first, int(r.under)-2)
	if n.isLeaf() {
		if n.entries[0].Key < lo || n.entries[len(n.entries)-1].Key > hi {
			return corrupt("leaf with keys out of its branch's range")
		}
		return nil
	}
	if n.level+1 >= int(r.under) || n.lo < lo || n.hi > hi {
		return corrupt("branch out of its branch's range")
	}
	return nil
}

func (r Ref) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, r.Count)
	if r.Count == 0 {
		return b
	}
	b = appendBytes(b, r.Inline)
	if len(r.Inline) == 0 {
		b = append(b, r.ID[:]...)
	}
	return b
}

func (d *decoder) ref() (r Ref) {
	if r.Count = d.uvarint(); r.Count == 0 {
		return Ref{}
	}
	n := d.uvarint()
	if n > InlineMax {
		d.fail("inlined node of %d bytes", n)
	}
	if n > 0 {
		r.Inline = d.bytes(n)
		return r
	}
	if r.ID = d.id(); r.ID.IsZero() {
		d.fail("reference to no chunk")
	}
	return r
}
