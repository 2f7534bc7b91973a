// Package placement says on which nodes the partitions of a graph are: where consistent hashing puts them, what has moved between two snapshots, and where they come to be when a
// snapshot is restored to other nodes.
//
// A Map is what the database says of itself (package graphmeta reads it): databases place partitions themselves, and graphvol moves none. The order of a partition's nodes says nothing.
//
// All functions are pure, and safe for concurrent use.
package placement

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"graphvol/internal/rendezvous"
)

// Map has the nodes of each partition, by the partition's id.
type Map map[string][]string

// Place puts each partition on so many of the nodes, by rendezvous hashing. A partition's nodes depend on its id and the nodes' names alone, and the first of them is the one to lead.
// A node that comes takes over its share of partitions and moves no other; one that goes leaves its partitions to others, and moves no other either.
func Place(partitions, nodes []string, replicas int) (Map, error) {
	if err := distinct("node", nodes); err != nil {
		return nil, err
	}
	if err := distinct("partition", partitions); err != nil {
		return nil, err
	}
	if replicas < 1 || replicas > len(nodes) {
		return nil, fmt.Errorf("%d copies of a partition can't be placed on %d nodes, one each", replicas, len(nodes))
	}
	out := make(Map, len(partitions))
	for _, id := range partitions {
		out[id] = place(id, nodes, replicas)
	}
	return out, nil
}

func place(id string, nodes []string, replicas int) []string {
	var out []string
	for _, n := range rendezvous.Order(nodes, id)[:replicas] {
		out = append(out, nodes[n])
	}
	return out
}

func distinct(what string, names []string) error {
	sorted := slices.Sorted(slices.Values(names))
	for i, name := range sorted {
		switch {
		case name == "":
			return errors.New("a " + what + " has no name")
		case i > 0 && name == sorted[i-1]:
			return fmt.Errorf("the %s %s comes twice", what, name)
		}
	}
	return nil
}

// Change is what has become of a partition.
type Change struct {
	Partition string   `json:"partition"`
	Before    []string `json:"before"` // its nodes, ascending
	After     []string `json:"after"`
}

func (c Change) String() string {
	return fmt.Sprintf("%s: %s → %s", c.Partition, list(c.Before), list(c.After))
}

func list(nodes []string) string {
	if len(nodes) == 0 {
		return "none"
	}
	return strings.Join(nodes, " ")
}

// Difference is how two maps differ. Its lists are in the order of the partitions' ids.
type Difference struct {
	Added   []Change `json:"added,omitempty"`
	Removed []Change `json:"removed,omitempty"`
	Moved   []Change `json:"moved,omitempty"` // other nodes, or more or fewer of them
}

// Drift says how the map of a later snapshot differs from that of an earlier one.
func Drift(before, after Map) Difference {
	var d Difference
	ids := maps.Clone(before)
	if ids == nil {
		ids = Map{}
	}
	maps.Copy(ids, after)
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		old, had := before[id]
		now, has := after[id]
		c := Change{id, slices.Sorted(slices.Values(old)), slices.Sorted(slices.Values(now))}
		switch {
		case !had:
			d.Added = append(d.Added, c)
		case !has:
			d.Removed = append(d.Removed, c)
		case !slices.Equal(c.Before, c.After):
			d.Moved = append(d.Moved, c)
		}
	}
	return d
}

// None tells whether the maps are equal.
func (d Difference) None() bool { return len(d.Added)+len(d.Removed)+len(d.Moved) == 0 }

// String is the difference in one line.
func (d Difference) String() string {
	var said []string
	for _, l := range []struct {
		verb string
		all  []Change
	}{{"moved", d.Moved}, {"added", d.Added}, {"removed", d.Removed}} {
		switch n := len(l.all); {
		case n == 1:
			said = append(said, fmt.Sprintf("%s %s", l.verb, l.all[0]))
		case n > 1:
			said = append(said, fmt.Sprintf("%s %d partitions, first %s", l.verb, n, l.all[0]))
		}
	}
	if said == nil {
		return "no partition has moved"
	}
	return strings.Join(said, "; ")
}
