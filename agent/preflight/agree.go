package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

// Fact is what nodes compare of a volume: those with the same label are parts of one database, and have their directories at the same paths, so that a restore finds them on any node.
type Fact struct {
	Label   string `json:"label"`
	Backing string `json:"backing"`
	Mount   string `json:"mount"`
}

// Facts are the facts of a configuration's volumes.
func Facts(c *config.File) (all []Fact) {
	for i := range c.Volumes {
		v := &c.Volumes[i]
		all = append(all, Fact{v.Label(), filepath.Clean(v.Backing), filepath.Clean(v.Mount)})
	}
	return all
}

// placed is a path on a node.
type placed struct{ node, path string }

// Compare compares the facts of several nodes, by their names. It gives a row for each label that more than one has, in the order of the labels.
func Compare(nodes map[string][]Fact) (rows []check.Row) {
	backings, mounts := map[string][]placed{}, map[string][]placed{}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		for _, f := range nodes[node] {
			backings[f.Label] = append(backings[f.Label], placed{node, f.Backing})
			mounts[f.Label] = append(mounts[f.Label], placed{node, f.Mount})
		}
	}
	for _, label := range slices.Sorted(maps.Keys(backings)) {
		if len(backings[label]) < 2 {
			continue
		}
		differ := slices.DeleteFunc([]string{differ("backing directory", backings[label]), differ("mount point", mounts[label])}, func(s string) bool { return s == "" })
		if len(differ) == 0 {
			rows = append(rows, check.Good("agreement", label))
			continue
		}
		rows = append(rows, check.Bad("agreement", label, strings.Join(differ, ", and ")+": make them the same in the configurations, or give what isn't part of one database another name", ""))
	}
	return rows
}

// differ says where a thing is, if it isn't at one path everywhere: the path that most have first.
func differ(what string, all []placed) string {
	at := map[string][]string{}
	for _, p := range all {
		at[p.path] = append(at[p.path], p.node)
	}
	if len(at) == 1 {
		return ""
	}
	paths := slices.SortedFunc(maps.Keys(at), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(at[b]), len(at[a])), cmp.Compare(a, b))
	})
	var out []string
	for _, p := range paths {
		out = append(out, fmt.Sprintf("%s on %s", p, strings.Join(at[p], ", ")))
	}
	return "the " + what + " is " + strings.Join(out, "; ")
}
