package erasure

import (
	"fmt"

	"graphvol/internal/rendezvous"
)

const (
	unitLen   = 64 << 10 // bytes with a checksum of their own; a part of the format
	maxLength = 1 << 50  // of an object, so that no sum overflows

	// Objects below this are stored as copies: a short one would be asked for k times to get it once.
	shortObject = 256 << 10

	maxShards = 32
)

// Layout is how objects are cut.
type Layout struct {
	Data, Parity int // k and m
}

// ParseLayout reads a layout as "4+2".
func ParseLayout(s string) (Layout, error) {
	var l Layout
	if _, err := fmt.Sscanf(s, "%d+%d", &l.Data, &l.Parity); err != nil || l.String() != s {
		return Layout{}, fmt.Errorf("layout %q: want DATA+PARITY, as in 4+2", s)
	}
	return l, l.check()
}

func (l Layout) String() string { return fmt.Sprintf("%d+%d", l.Data, l.Parity) }

func (l Layout) check() error {
	switch {
	case l.Data < 1:
		return fmt.Errorf("layout %s: at least one data shard is needed", l)
	case l.Parity < 0:
		return fmt.Errorf("layout %s: there can't be less than no parity shards", l)
	case l.Data > maxShards || l.Parity > maxShards || l.total() > maxShards:
		return fmt.Errorf("layout %s: no more than %d shards are possible", l, maxShards)
	}
	return nil
}

func (l Layout) total() int { return l.Data + l.Parity }

// shardLen is the length of each shard's body.
func (l Layout) shardLen(length int64) int64 {
	s := (length + int64(l.Data) - 1) / int64(l.Data)
	return (s + unitLen - 1) / unitLen * unitLen
}

func units(body int64) int64 { return (body + unitLen - 1) / unitLen }

// fileLen is the length of a shard or copy as it is stored.
func fileLen(body int64) int64 { return headerLen + body + 4*units(body) + 4 }

// copyLen is the length of the object in a copy of size bytes, or false if none has that size.
func copyLen(size int64) (int64, bool) {
	rest := size - headerLen - 4
	if rest < 0 || rest > 2*maxLength {
		return 0, false
	}
	n := (rest + unitLen + 3) / (unitLen + 4) // units
	body := rest - 4*n
	return body, body >= 0 && body <= maxLength && fileLen(body) == size
}

// everywhere lists all members, those first that should have an object's copies.
func (t *Target) everywhere(name string) []int {
	out := order(t.ids, name)
	for m := len(t.ids); m < len(t.members); m++ {
		out = append(out, m)
	}
	return out
}

// order lists the members as the shards of an object go to them.
func order(ids []string, name string) []int { return rendezvous.Order(ids, name) }
