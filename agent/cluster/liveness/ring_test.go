package liveness

import (
	"fmt"
	"slices"
	"testing"
)

func names(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("node%02d", i))
	}
	return all
}

func TestRing(t *testing.T) {
	all := names(64)
	order := ring(all)
	if got := ring(append(slices.Clone(order), order[3])); !slices.Equal(got, order) {
		t.Error("the ring depends on the order or the number of the names that it is given")
	}
	if slices.Equal(order, all) || len(order) != 64 {
		t.Errorf("the ring is %v", order)
	}
	next := 0
	for i, n := range all[1:] {
		if slices.Contains(Targets(all, n, 0, 0), all[i]) {
			next++
		}
	}
	if next > 8 {
		t.Errorf("%d of 63 neighbours by name are neighbours on the ring", next)
	}
}

// TestTwoPaths: whichever agent is away, all others are still connected by the probes of any round; and with that, between any two are two paths that share no third (Menger).
func TestTwoPaths(t *testing.T) {
	for _, n := range []int{3, 4, 5, 6, 16, 64} {
		all := names(n)
		for round := range uint64(4) {
			edges := map[string]map[string]bool{}
			link := func(a, b string) {
				if edges[a] == nil {
					edges[a] = map[string]bool{}
				}
				edges[a][b] = true
			}
			for _, a := range all {
				for _, b := range Targets(all, a, round, 2) {
					link(a, b)
					link(b, a)
				}
			}
			for _, away := range all {
				seen := map[string]bool{away: true}
				var walk func(string)
				walk = func(a string) {
					if !seen[a] {
						seen[a] = true
						for b := range edges[a] {
							walk(b)
						}
					}
				}
				if walk(all[0]); all[0] == away {
					walk(all[1])
				}
				if len(seen) != n {
					t.Fatalf("%d agents, round %d: without %s only %d are connected", n, round, away, len(seen))
				}
			}
		}
	}
}

func TestTargets(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 64: 4} {
		all := names(n)
		const from = ^uint64(0) - 5 // the number of the round may come to its end
		met := map[string]int{}
		for i := range uint64(40) {
			probed := map[string]int{}
			for _, here := range all {
				targets := Targets(all, here, from+i, 2)
				if len(targets) != want || slices.Contains(targets, here) || len(slices.Compact(slices.Sorted(slices.Values(targets)))) != want {
					t.Fatalf("%d agents: %s probes %v", n, here, targets)
				}
				for _, to := range targets {
					probed[to]++
					if here == all[0] {
						met[to]++
					}
				}
			}
			for _, name := range all {
				if probed[name] != want {
					t.Fatalf("%d agents, round %d: %s is probed by %d", n, i, name, probed[name])
				}
			}
		}
		if len(met) != n-1 {
			t.Errorf("%d agents: one comes round to %d others", n, len(met))
		}
	}
}

func TestHelpers(t *testing.T) {
	all := names(6)
	order := after(ring(all), all[2])
	here := order[2]
	for had, want := range [][]string{
		{order[0], order[4], order[1], order[3]}, {order[4], order[1], order[3], order[0]},
		{order[1], order[3], order[0], order[4]}, {order[3], order[0], order[4], order[1]}, {order[0], order[4], order[1], order[3]},
	} {
		if got := helpers(all, here, all[2], had); !slices.Equal(got, want) {
			t.Errorf("after %d: %v, want %v", had, got, want)
		}
	}
	if got := helpers(all[:2], all[0], all[1], 0); len(got) != 0 {
		t.Errorf("two agents have the helpers %v", got)
	}
}
