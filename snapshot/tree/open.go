package tree

import "context"

// Open gives what the root node of a map holds: entries, if it is a leaf, else the maps that it branches into. It lets a caller go
// on where Reach would end: at a damaged node. None of it is to be written to.
func (n *Nodes) Open(ctx context.Context, ref Ref) ([]Entry, []Ref, error) {
	if ref.Count == 0 {
		return nil, nil, nil
	}
	nd, err := n.load(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	return nd.entries, nd.children, nil
}
