package tree

import "graphvol/chunkstore"

// Ref refers to a map: by the id of its root node, or, if the root node is small, by holding it.
// The zero Ref is the empty map. Two Refs to maps with the same entries are equal.
type Ref struct {
	Count  uint64        // entries in the map
	ID     chunkstore.ID // of the root node; zero if it is in Inline
	Inline []byte        // the root node, of at most InlineMax bytes; never written to
}
