package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(prefix, i+1)
	}
	return out
}

func mustPlace(t *testing.T, partitions, nodes []string, replicas int) Map {
	t.Helper()
	m, err := Place(partitions, nodes, replicas)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPlaceIsFixed: what was placed once is found there by every later release.
func TestPlaceIsFixed(t *testing.T) {
	m := mustPlace(t, []string{"1", "2", "3"}, []string{"a", "b", "c", "d"}, 2)
	want := Map{"1": {"a", "d"}, "2": {"b", "d"}, "3": {"d", "c"}}
	for id, nodes := range want {
		if !slices.Equal(m[id], nodes) {
			t.Errorf("%s is on %v, want %v", id, m[id], nodes)
		}
	}
	again := mustPlace(t, []string{"3", "1", "2"}, []string{"d", "b", "a", "c"}, 2)
	if d := Drift(m, again); !d.None() {
		t.Errorf("in another order: %s", d)
	}
}

// TestPlaceMovesLittle compares every partition when a node comes, goes, or there are to be more copies.
func TestPlaceMovesLittle(t *testing.T) {
	ids := numbered("", 2000)
	for _, c := range []struct{ nodes, replicas int }{{1, 1}, {3, 2}, {5, 3}, {8, 1}, {64, 3}} {
		nodes := numbered("node", c.nodes+1)
		before, after := mustPlace(t, ids, nodes[:c.nodes], c.replicas), mustPlace(t, ids, nodes, c.replicas)
		newest := nodes[c.nodes]
		for _, moved := range Drift(before, after).Moved {
			kept := slices.DeleteFunc(slices.Clone(moved.After), func(n string) bool { return n == newest })
			if len(kept) != c.replicas-1 || slices.ContainsFunc(kept, func(n string) bool { return !slices.Contains(moved.Before, n) }) {
				t.Errorf("%d nodes and one more: %s", c.nodes, moved)
			}
		}
		// The other way round it is the loss of a node: only what it had has moved.
		for id, had := range after {
			if !slices.Contains(had, newest) && !slices.Equal(had, before[id]) {
				t.Errorf("%d nodes without one: partition %s moved from %v to %v", c.nodes+1, id, had, before[id])
			}
		}
		share := float64(len(ids)*c.replicas) / float64(c.nodes+1)
		if n := float64(len(Drift(before, after).Moved)); n < 0.6*share || n > 1.4*share {
			t.Errorf("%d nodes and one more: %.0f partitions moved, and its share is %.0f", c.nodes, n, share)
		}
		more := mustPlace(t, ids, nodes, c.replicas+1)
		for id, had := range after {
			if !slices.Equal(more[id][:c.replicas], had) {
				t.Errorf("one copy more: partition %s was on %v and is on %v", id, had, more[id])
			}
		}
	}
}

func TestPlaceIsEven(t *testing.T) {
	f := Measure(mustPlace(t, numbered("p", 3000), numbered("10.0.0.", 8), 3))
	if f.Copies != 9000 || f.Misplaced != 0 || f.Fewest < 1000 || f.Most > 1250 {
		t.Errorf("%+v", f)
	}
}

func TestPlaceRefuses(t *testing.T) {
	for want, c := range map[string]struct {
		partitions, nodes []string
		replicas          int
	}{
		"3 copies of a partition can't be placed on 2 nodes, one each": {nil, []string{"a", "b"}, 3},
		"0 copies of a partition can't be placed on 1 nodes, one each": {nil, []string{"a"}, 0},
		"the node a comes twice":       {nil, []string{"a", "b", "a"}, 1},
		"a node has no name":           {nil, []string{""}, 1},
		"the partition 1 comes twice":  {[]string{"1", "1"}, []string{"a"}, 1},
		"a partition has no name":      {[]string{""}, []string{"a"}, 1},
		"1 copies of a partition can'": {nil, nil, 1},
	} {
		if m, err := Place(c.partitions, c.nodes, c.replicas); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, %v, want %s", m, err, want)
		}
	}
}

func TestDrift(t *testing.T) {
	before := Map{"1": {"a", "b"}, "2": {"a"}, "3": {"c"}, "4": {"c"}}
	after := Map{"1": {"b", "a"}, "2": {"b"}, "3": {"c", "a"}, "5": {"d"}}
	d := Drift(before, after)
	if got, want := d.String(), "moved 2 partitions, first 2: a → b; added 5: none → d; removed 4: c → none"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := fmt.Sprint(d.Moved), "[2: a → b 3: c → a c]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, m := range []Map{nil, before} {
		if d := Drift(m, m); !d.None() || d.String() != "no partition has moved" {
			t.Errorf("%+v", d)
		}
	}
	if d := Drift(nil, Map{"1": {"a"}}); d.None() || len(d.Added) != 1 {
		t.Errorf("%+v", d)
	}
	if !slices.Equal(before["1"], []string{"a", "b"}) || len(before) != 4 {
		t.Errorf("Drift has changed its argument: %v", before)
	}
}

func TestMeasure(t *testing.T) {
	m := mustPlace(t, numbered("", 100), []string{"a", "b", "c"}, 2)
	if f := Measure(m); f.Misplaced != 0 || f.Copies != 200 {
		t.Errorf("%+v", f)
	}
	moved := m["7"]
	other := map[string]string{"ab": "c", "ac": "b", "bc": "a"}[strings.Join(slices.Sorted(slices.Values(moved)), "")]
	m["7"] = []string{moved[0], other}
	if f := Measure(m); f.Misplaced != 1 {
		t.Errorf("%+v", f)
	}
	f := Measure(m, "d", "a") // a node without partitions should have its share
	if f.Fewest != 0 || f.Misplaced < 30 || f.Misplaced > 70 {
		t.Errorf("%+v", f)
	}
	if got, want := Measure(Map{"1": {"a"}}, "b").String(), "of 1 copies are where consistent hashing would put them; a node has 0 to 1"; !strings.HasSuffix(got, want) {
		t.Error(got)
	}
	if f := Measure(Map{"1": {"a", "a"}, "2": nil}); f.Copies != 2 || f.Misplaced != 0 {
		t.Errorf("what a database may not say: %+v", f)
	}
	if f := Measure(nil); f != (Fit{}) {
		t.Errorf("%+v", f)
	}
}
