package snapshot

import (
	"math/bits"

	"graphvol/chunkstore"
)

const (
	// smallPack is the size from which on a pack is left as it is.
	smallPack = 1 << 20
	// mergeFrom packs of one tier become one. Packs of a tier differ by a factor of 8 at most, so a chunk is copied about once on its
	// way to the next tier, and seven times until it is in a large pack; and no more than mergeFrom packs of each tier stay. What they
	// become is in a higher tier.
	mergeFrom = 16
	tierBits  = 3
)

// tier of a pack with so many bytes that are needed.
func tier(live int64) int { return bits.Len64(uint64(live)) / tierBits }

// crowded gives the small packs of which there are too many. Every snapshot makes a pack, and a chunk that is still needed keeps it; without
// merging, there would be as many packs in the end as chunks that live long.
func crowded(packs map[chunkstore.PackID]*packUse) (out []chunkstore.PackID) {
	var tiers [64/tierBits + 1][]chunkstore.PackID
	for id, u := range packs {
		if u.chunks > 0 && u.live < smallPack && !u.away {
			tiers[tier(u.live)] = append(tiers[tier(u.live)], id)
		}
	}
	merged := int64(0) // bytes of what becomes one pack
	for i, ids := range tiers {
		n := len(ids)
		if merged > 0 && tier(merged) == i {
			n++
		}
		if n <= mergeFrom {
			continue
		}
		for _, id := range ids {
			merged += packs[id].live
		}
		out = append(out, ids...)
	}
	return out
}
