// Package rendezvous orders places for a key by rendezvous hashing, also called highest random weight: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit
// rates", IEEE/ACM Transactions on Networking 6(1), 1998.
//
// Every place is hashed together with the key, and the hashes are the order. So the order of two places doesn't depend on the others: when one comes or goes, the rest stay in order.
package rendezvous

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// Order lists the indices of ids in the key's order: by SHA-256 of the id, a zero byte, and the key. That never changes: stores and placements depend on it.
func Order(ids []string, key string) []int {
	sums := make([]string, len(ids))
	out := make([]int, len(ids))
	for i, id := range ids {
		sum := sha256.Sum256([]byte(id + "\x00" + key))
		sums[i], out[i] = string(sum[:]), i
	}
	slices.SortFunc(out, func(a, b int) int { return strings.Compare(sums[a], sums[b]) })
	return out
}
