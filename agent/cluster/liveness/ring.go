package liveness

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// ring gives all names in the order of their hashes, so that agents whose names are alike, and which may stand in one rack, are no neighbours.
func ring(names []string) []string {
	hashes := make(map[string]uint64, len(names))
	for _, n := range names {
		sum := sha256.Sum256([]byte(n))
		hashes[n] = binary.BigEndian.Uint64(sum[:])
	}
	order := slices.Compact(slices.Sorted(slices.Values(names)))
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(hashes[a], hashes[b]) })
	return order
}

// after gives the others on the ring, beginning behind one of them.
func after(order []string, name string) []string {
	i := slices.Index(order, name)
	if i < 0 {
		return order
	}
	return slices.Concat(order[i+1:], order[:i])
}

// Targets gives those that an agent probes in a round: its neighbours on the ring, and others in turn, so that all have had theirs after some rounds. In each round every agent is
// probed by as many.
func Targets(names []string, here string, round uint64, others int) []string {
	rest := after(ring(names), here)
	if len(rest) <= 2 {
		return rest
	}
	targets := []string{rest[0], rest[len(rest)-1]}
	rest = rest[1 : len(rest)-1]
	for i := range min(others, len(rest)) {
		targets = append(targets, rest[(round*uint64(others)+uint64(i))%uint64(len(rest))])
	}
	return targets
}

// helpers gives those that could be asked to reach a peer: its neighbours, who probe it anyway, then the others. The first so many are put at the end: they had their turn.
func helpers(names []string, here, peer string, had int) []string {
	rest := after(ring(names), peer)
	if n := len(rest); n > 2 {
		rest = slices.Concat(rest[:1], rest[n-1:], rest[1:n-1])
	}
	rest = slices.DeleteFunc(slices.Clone(rest), func(n string) bool { return n == here })
	if len(rest) == 0 {
		return nil
	}
	had %= len(rest)
	return slices.Concat(rest[had:], rest[:had])
}
