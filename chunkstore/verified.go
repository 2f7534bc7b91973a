package chunkstore

import "sync"

// VerifiedSet remembers what was verified lately, by a key that stands for certain bytes in a certain place: between limit/2 and
// limit keys once it is full. It is safe for concurrent use.
type VerifiedSet[K comparable] struct {
	limit int

	mu struct {
		sync.RWMutex
		young, old map[K]struct{}
	}
}

// NewVerifiedSet returns an empty set of at most limit keys.
func NewVerifiedSet[K comparable](limit int) *VerifiedSet[K] {
	v := &VerifiedSet[K]{limit: limit}
	v.mu.young = make(map[K]struct{})
	return v
}

// Has tells whether a key was added and isn't forgotten yet.
func (v *VerifiedSet[K]) Has(k K) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if _, ok := v.mu.young[k]; ok {
		return true
	}
	_, ok := v.mu.old[k]
	return ok
}

// Add adds a key.
func (v *VerifiedSet[K]) Add(k K) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.mu.young) >= v.limit/2 {
		v.mu.old, v.mu.young = v.mu.young, make(map[K]struct{})
	}
	v.mu.young[k] = struct{}{}
}

// hashedLimit bounds the records that need no second hash: about 16 MB of memory, for 16 GiB of segments.
const hashedLimit = 128 << 10

// recordAt is a chunk's record in a pack. Packs never change, and their names are those of their content.
type recordAt struct {
	id   ID
	pack PackID
	off  uint32
}

func (l *Located) record() recordAt { return recordAt{l.ID, l.Pack, l.Offset} }
