package tree

import (
	"testing"
)

// TestWrittenNodesAreKept: what a seal writes the next one reads from memory, as far as the cache reaches.
func TestWrittenNodesAreKept(t *testing.T) {
	const entries = 10_000
	for _, tc := range []struct {
		name  string
		cache int
		reads bool
	}{
		{"all fit", 8 << 20, false},
		{"few fit", 4 << 10, true},
	} {
		m := newMemory()
		nodes := NewNodes(m, tc.cache)
		b := nodes.NewBuilder(t.Context(), m)
		for k := range uint64(entries) {
			if err := b.Add(Entry{Key: k, Value: []byte("a value that takes its room in a leaf")}); err != nil {
				t.Fatal(err)
			}
		}
		ref, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		m.gets = 0
		for range 2 { // the second time from what is decoded
			for k := range uint64(entries) {
				if _, ok, err := nodes.Get(t.Context(), ref, k, ""); err != nil || !ok {
					t.Fatalf("%s: entry %d: %v, %v", tc.name, k, ok, err)
				}
			}
		}
		if (m.gets > 0) != tc.reads {
			t.Errorf("%s: %d nodes were read from the store", tc.name, m.gets)
		}
		if n := nodes.mu.bytes; n > tc.cache && nodes.mu.lru.Len() > 1 {
			t.Errorf("%s: %d bytes are kept, the limit is %d", tc.name, n, tc.cache)
		}
	}
}
