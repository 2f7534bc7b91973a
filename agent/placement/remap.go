package placement

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Node is a node of a snapshot, with the labels of its volumes.
type Node struct {
	Name    string
	Volumes []string
}

// Restore is one volume of a plan.
type Restore struct {
	From Volume `json:"from"`
	To   Volume `json:"to"`
}

// Plan is what becomes of a snapshot that is restored by rules. Lists are in the order of the snapshot's nodes, or of the partitions' ids.
type Plan struct {
	Restores   []Restore `json:"restores"`
	Dropped    []Volume  `json:"dropped,omitempty"`    // what rules leave out
	Partitions Map       `json:"partitions,omitempty"` // where they are afterwards, without the lost ones
	Fewer      []Change  `json:"fewer,omitempty"`      // partitions with fewer copies than in the snapshot
	Lost       []Change  `json:"lost,omitempty"`       // partitions of which no copy is restored: without them the graph is not whole
	Unknown    []string  `json:"unknown,omitempty"`    // nodes of partitions that are no nodes of the snapshot, as the database calls them otherwise; nothing is known of their copies
}

// Remap makes the plan for a snapshot of nodes, in which the graph's partitions were as the map says. Without rules, every volume goes to where it was.
//
// With rules, each node or volume of the snapshot must be mapped once or left out by name, so that nothing is forgotten. The volumes of a node stay together, as its partitions do. Several
// nodes may go to one, if no two volumes are to be the same one there. A plan with Lost partitions is no error here: ask before it is carried out.
func Remap(nodes []Node, partitions Map, rules []Rule) (*Plan, error) {
	to, err := targets(nodes, rules)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	moved := make(map[string]string, len(nodes)) // old node to new one, or ""
	taken := make(map[Volume]Volume)
	for _, n := range nodes {
		moved[n.Name] = ""
		for _, name := range n.Volumes {
			from := Volume{n.Name, name}
			target := to[from]
			if target == (Volume{}) {
				p.Dropped = append(p.Dropped, from)
				continue
			}
			if other, ok := taken[target]; ok {
				return nil, fmt.Errorf("%s and %s would both be restored to %s: give one of them another volume (--map %s=%s:VOLUME), or leave it out (--map %s=-)",
					other, from, target, from, target.Node, from)
			}
			if was := moved[n.Name]; was != "" && was != target.Node {
				return nil, fmt.Errorf("the volumes of node %s would be restored to %s and %s: they belong together, so give them one node", n.Name, was, target.Node)
			}
			taken[target], moved[n.Name] = from, target.Node
			p.Restores = append(p.Restores, Restore{from, target})
		}
	}
	if len(p.Restores) == 0 {
		return nil, errors.New("nothing would be restored: all is left out")
	}
	p.movePartitions(partitions, moved)
	return p, nil
}

// targets says for each volume where it goes; the zero Volume: it is left out.
func targets(nodes []Node, rules []Rule) (map[Volume]Volume, error) {
	ruled, err := byFrom(nodes, rules)
	if err != nil {
		return nil, err
	}
	out := make(map[Volume]Volume)
	var forgotten []string
	for _, n := range nodes {
		whole, all := ruled[Volume{Node: n.Name}]
		for _, name := range n.Volumes {
			from := Volume{n.Name, name}
			target, one := ruled[from]
			switch {
			case one:
				out[from] = target
			case len(rules) == 0:
				out[from] = from
			case !all:
				forgotten = append(forgotten, from.String())
			case whole != Volume{}:
				out[from] = Volume{whole.Node, name}
			}
		}
	}
	if forgotten != nil {
		first, _, _ := strings.Cut(forgotten[0], ":")
		return nil, fmt.Errorf("--map says nothing of %s: say where each goes, as --map %s=NODE, or leave it out with --map %s=-", strings.Join(forgotten, ", "), first, first)
	}
	return out, nil
}

// byFrom checks that rules are for what is in the snapshot, and one at most for each.
func byFrom(nodes []Node, rules []Rule) (map[Volume]Volume, error) {
	known := make(map[Volume]bool)
	var names []string
	for _, n := range nodes {
		known[Volume{Node: n.Name}] = true
		names = append(names, n.Name)
		for _, name := range n.Volumes {
			known[Volume{n.Name, name}] = true
			names = append(names, Volume{n.Name, name}.String())
		}
	}
	out := make(map[Volume]Volume, len(rules))
	for _, r := range rules {
		if !known[r.From] {
			return nil, fmt.Errorf("--map %s: the snapshot has no %s: it has %s", r, r.From, strings.Join(names, ", "))
		}
		if other, twice := out[r.From]; twice {
			return nil, fmt.Errorf("--map %s: there is --map %s too", r, Rule{r.From, other})
		}
		out[r.From] = r.To
	}
	return out, nil
}

func (p *Plan) movePartitions(partitions Map, moved map[string]string) {
	unknown := make(map[string]bool)
	if len(partitions) > 0 {
		p.Partitions = make(Map, len(partitions))
	}
	for _, id := range slices.Sorted(maps.Keys(partitions)) {
		c := Change{Partition: id, Before: slices.Sorted(slices.Values(partitions[id]))}
		for _, old := range c.Before {
			now, known := moved[old]
			if !known {
				now, unknown[old] = old, true
			}
			if now != "" {
				c.After = append(c.After, now)
			}
		}
		slices.Sort(c.After)
		c.After = slices.Compact(c.After)
		switch {
		case len(c.After) == 0:
			p.Lost = append(p.Lost, c)
			continue
		case len(c.After) < len(c.Before):
			p.Fewer = append(p.Fewer, c)
		}
		p.Partitions[id] = c.After
	}
	p.Unknown = slices.Sorted(maps.Keys(unknown))
}

// Warnings says, a line each, what somebody who restores by the plan should know first.
func (p *Plan) Warnings() []string {
	var out []string
	if len(p.Lost) > 0 {
		out = append(out, fmt.Sprintf("%d partitions are not restored, as all their nodes are left out, first %s", len(p.Lost), p.Lost[0]))
	}
	if len(p.Fewer) > 0 {
		out = append(out, fmt.Sprintf("%d partitions have fewer copies than in the snapshot, first %s", len(p.Fewer), p.Fewer[0]))
	}
	if len(p.Unknown) > 0 {
		out = append(out, fmt.Sprintf("the graph has partitions on %s, which are no nodes of the snapshot: whether all their copies are restored isn't known", strings.Join(p.Unknown, ", ")))
	}
	return out
}
