package tree

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"graphvol/chunkstore"
)

// memory is a chunk store in memory.
type memory struct {
	mu     sync.Mutex
	chunks map[chunkstore.ID][]byte
	puts   int
	gets   int
}

func newMemory() *memory { return &memory{chunks: map[chunkstore.ID][]byte{}} }

func (m *memory) Get(_ context.Context, id chunkstore.ID, buf []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	p, ok := m.chunks[id]
	if !ok {
		return nil, chunkstore.ErrNotFound
	}
	return append(buf[:0], p...), nil
}

func (m *memory) Put(p []byte) (chunkstore.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	id := chunkstore.Sum(p)
	m.chunks[id] = bytes.Clone(p)
	return id, nil
}

var _ Getter = (*memory)(nil)
var _ Putter = (*memory)(nil)

type modelKey struct {
	key  uint64
	name string
}

func sortedEntries(model map[modelKey][]byte) []Entry {
	es := make([]Entry, 0, len(model))
	for k, v := range model {
		es = append(es, Entry{Key: k.key, Name: k.name, Value: v})
	}
	slices.SortFunc(es, func(a, b Entry) int { return a.compare(b.Key, b.Name) })
	return es
}

func build(t *testing.T, n *Nodes, put Putter, es []Entry) Ref {
	t.Helper()
	b := n.NewBuilder(context.Background(), put)
	for _, e := range es {
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// keyShapes are distributions of keys: each stresses another part of the shape rules.
func keyShapes(r *rand.Rand) map[string]func() modelKey {
	return map[string]func() modelKey{
		"dense":    func() modelKey { return modelKey{key: r.Uint64N(3000)} },
		"sparse":   func() modelKey { return modelKey{key: r.Uint64()} },
		"clusters": func() modelKey { return modelKey{key: 1<<40 + r.Uint64N(4)<<30 + r.Uint64N(200)} },
		"names":    func() modelKey { s := fmt.Sprint(r.IntN(1500)); return modelKey{NameKey(s), s} },
		"collide":  func() modelKey { return modelKey{7 + r.Uint64N(3)<<58, fmt.Sprint(r.IntN(200))} },
	}
}

func TestMapHasOneForm(t *testing.T) {
	seed := rand.Uint64()
	for shape := range keyShapes(nil) {
		t.Run(shape, func(t *testing.T) {
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			gen := keyShapes(r)[shape]
			m := newMemory()
			nodes := NewNodes(m, 64<<10)
			model, ref := map[modelKey][]byte{}, Ref{}
			for round := range 60 {
				edits := randomEdits(r, gen, model, round)
				before, old := sortedEntries(model), ref
				var err error
				if ref, err = nodes.Apply(t.Context(), m, ref, edits); err != nil {
					t.Fatal(err)
				}
				applyModel(model, edits)
				want := sortedEntries(model)
				if fresh := build(t, nodes, m, want); !fresh.Equal(ref) {
					t.Fatalf("round %d, %d entries: applying edits gives another root than building", round, len(want))
				}
				checkMap(t, nodes, ref, want)
				checkDiff(t, nodes, old, ref, before, want)
			}
		})
	}
}

func randomEdits(r *rand.Rand, gen func() modelKey, model map[modelKey][]byte, round int) []Edit {
	set := map[modelKey]Edit{}
	for range 1 + r.IntN(1+r.IntN(400)) {
		k := gen()
		e := Edit{Entry: Entry{Key: k.key, Name: k.name, Value: make([]byte, r.IntN(40))}, Delete: r.IntN(3) == 0}
		if r.IntN(200) == 0 {
			e.Value = make([]byte, 20<<10) // leaves that are split because of their bytes
		}
		for i := range e.Value[:min(8, len(e.Value))] {
			e.Value[i] = byte(r.Uint32())
		}
		set[k] = e
	}
	if round%7 == 6 {
		for k := range model {
			if r.IntN(4) > 0 {
				set[k] = Edit{Entry: Entry{Key: k.key, Name: k.name}, Delete: true}
			}
		}
	}
	edits := make([]Edit, 0, len(set))
	for _, e := range set {
		edits = append(edits, e)
	}
	slices.SortFunc(edits, Edit.Compare)
	return edits
}

func applyModel(model map[modelKey][]byte, edits []Edit) {
	for _, e := range edits {
		if e.Delete {
			delete(model, modelKey{e.Key, e.Name})
		} else {
			model[modelKey{e.Key, e.Name}] = e.Value
		}
	}
}

func checkMap(t *testing.T, nodes *Nodes, ref Ref, want []Entry) {
	t.Helper()
	if ref.Count != uint64(len(want)) {
		t.Fatalf("map has %d entries, want %d", ref.Count, len(want))
	}
	i := 0
	err := nodes.Ascend(t.Context(), ref, 0, func(e Entry) error {
		if i >= len(want) || e.compare(want[i].Key, want[i].Name) != 0 || !bytes.Equal(e.Value, want[i].Value) {
			return fmt.Errorf("entry %d is %d %q", i, e.Key, e.Name)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) {
		t.Fatalf("after %d of %d entries: %v", i, len(want), err)
	}
	for _, e := range want[:min(50, len(want))] {
		v, ok, err := nodes.Get(t.Context(), ref, e.Key, e.Name)
		if err != nil || !ok || !bytes.Equal(v, e.Value) {
			t.Fatalf("get %d %q: %v %v", e.Key, e.Name, ok, err)
		}
		if _, ok, err := nodes.Get(t.Context(), ref, e.Key, e.Name+"x"); ok || err != nil {
			t.Fatalf("get of a missing entry: %v %v", ok, err)
		}
	}
	if len(want) > 0 {
		from := want[len(want)/2].Key
		_ = nodes.Ascend(t.Context(), ref, from, func(e Entry) error {
			if e.Key < from {
				t.Fatalf("ascending from %d gives %d", from, e.Key)
			}
			return fs.SkipAll
		})
	}
}

func checkDiff(t *testing.T, nodes *Nodes, a, b Ref, old, now []Entry) {
	t.Helper()
	want := map[modelKey][2]string{}
	for _, e := range old {
		want[modelKey{e.Key, e.Name}] = [2]string{"o" + string(e.Value), ""}
	}
	for _, e := range now {
		k := modelKey{e.Key, e.Name}
		if was := want[k]; was[0] == "o"+string(e.Value) {
			delete(want, k)
		} else {
			want[k] = [2]string{was[0], "n" + string(e.Value)}
		}
	}
	var last *Change
	err := nodes.Diff(t.Context(), a, b, func(c Change) error {
		var got [2]string
		if c.Old != nil {
			got[0] = "o" + string(c.Old)
		}
		if c.New != nil {
			got[1] = "n" + string(c.New)
		}
		k := modelKey{c.Key, c.Name}
		if w, ok := want[k]; !ok || w != got {
			return fmt.Errorf("unexpected change of %v", k)
		}
		delete(want, k)
		if last != nil && (&Entry{Key: last.Key, Name: last.Name}).compare(c.Key, c.Name) >= 0 {
			return fmt.Errorf("changes out of order at %v", k)
		}
		last = &c
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Fatalf("diff misses %d changes: %v", len(want), err)
	}
}

func TestApplyWritesOnlyThePath(t *testing.T) {
	m := newMemory()
	nodes := NewNodes(m, 1<<20)
	var es []Entry
	for i := range uint64(64 * 64 * 8) {
		es = append(es, Entry{Key: i, Value: make([]byte, 33)})
	}
	ref := build(t, nodes, m, es)
	m.puts = 0
	ref2, err := nodes.Apply(t.Context(), m, ref, []Edit{{Entry: Entry{Key: 20000, Value: []byte("x")}}})
	if err != nil || m.puts != 3 {
		t.Fatalf("one edit wrote %d nodes, want 3: %v", m.puts, err)
	}
	cold := NewNodes(m, 1<<20)
	m.gets = 0
	changes := 0
	if err := cold.Diff(t.Context(), ref, ref2, func(Change) error { changes++; return nil }); err != nil || changes != 1 || m.gets > 6 {
		t.Fatalf("diff of one edit: %d changes, %d nodes read: %v", changes, m.gets, err)
	}
}

func TestApplyBelow(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	m := newMemory()
	nodes := NewNodes(m, 1<<20)
	for range 200 {
		model := map[modelKey][]byte{}
		for range 1 + r.IntN(3000) {
			model[modelKey{key: r.Uint64N(9000)}] = []byte("v")
		}
		ref := build(t, nodes, m, sortedEntries(model))
		cut := r.Uint64N(10000)
		for k := range model {
			if k.key >= cut {
				delete(model, k)
			}
		}
		var edits []Edit
		for k := uint64(0); k < cut; k += 1 + r.Uint64N(2000) {
			edits = append(edits, Edit{Entry: Entry{Key: k, Value: []byte("w")}, Delete: r.IntN(2) == 0})
		}
		applyModel(model, edits)
		got, err := nodes.ApplyBelow(t.Context(), m, ref, cut, edits)
		if err != nil || !got.Equal(build(t, nodes, m, sortedEntries(model))) {
			t.Fatalf("cut at %d: another root than building (%v)", cut, err)
		}
	}
}

func TestApplyRefusesDisorder(t *testing.T) {
	m := newMemory()
	nodes := NewNodes(m, 1<<20)
	edits := []Edit{{Entry: Entry{Key: 2}}, {Entry: Entry{Key: 2}}}
	if _, err := nodes.Apply(t.Context(), m, Ref{}, edits); err != ErrOrder {
		t.Fatalf("got %v, want ErrOrder", err)
	}
	if _, err := nodes.Apply(t.Context(), m, Ref{}, []Edit{{Entry: Entry{Value: make([]byte, MaxValue+1)}}}); err == nil {
		t.Fatal("an oversized value was accepted")
	}
}
