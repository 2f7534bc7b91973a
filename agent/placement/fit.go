package placement

import (
	"fmt"
	"maps"
	"slices"
)

// Fit is how a map compares with what Place would give.
type Fit struct {
	Copies    int `json:"copies"`    // of all partitions
	Misplaced int `json:"misplaced"` // copies on other nodes than Place would put them on
	Most      int `json:"most"`      // copies on the node that has the most
	Fewest    int `json:"fewest"`    // and the fewest
}

// Measure says how far a map is from consistent hashing over the nodes that it names, and over others that have no partition yet. Each partition keeps the number of its copies.
func Measure(m Map, others ...string) Fit {
	load := make(map[string]int)
	for _, name := range others {
		load[name] = 0
	}
	for _, nodes := range m {
		for _, name := range nodes {
			load[name]++
		}
	}
	all := slices.Sorted(maps.Keys(load))
	var f Fit
	for id, nodes := range m {
		ideal := place(id, all, min(len(nodes), len(all)))
		f.Copies += len(nodes)
		for _, name := range nodes {
			if !slices.Contains(ideal, name) {
				f.Misplaced++
			}
		}
	}
	if len(all) > 0 {
		loads := slices.Collect(maps.Values(load))
		f.Most, f.Fewest = slices.Max(loads), slices.Min(loads)
	}
	return f
}

// String is the measure in one line.
func (f Fit) String() string {
	return fmt.Sprintf("%d of %d copies are where consistent hashing would put them; a node has %d to %d", f.Copies-f.Misplaced, f.Copies, f.Fewest, f.Most)
}
