package graphmeta

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// most names of a list are said in a line.
const most = 5

// Compare says in one line what differs from before to after; empty if nothing does, which is when their digests are equal.
func Compare(before, after *Meta) string {
	var said []string
	if before.Version != after.Version {
		said = append(said, fmt.Sprintf("version was %s and is %s", shorten(before.Version), shorten(after.Version)))
	}
	for _, part := range []struct {
		name, changed string
		of            func(*Meta) map[string]string
	}{
		{"vertex types", "changed", func(m *Meta) map[string]string { return typeTexts(m.VertexTypes) }},
		{"edge types", "changed", func(m *Meta) map[string]string { return typeTexts(m.EdgeTypes) }},
		{"partitions", "moved", partitionTexts},
		{"other keys", "changed", func(m *Meta) map[string]string { return texts(m.extra) }},
	} {
		if d := differ(part.of(before), part.of(after), part.changed); d != "" {
			said = append(said, part.name+": "+d)
		}
	}
	switch {
	case before.InProgress == after.InProgress:
	case after.InProgress == "":
		said = append(said, "nothing is in progress any more")
	default:
		said = append(said, "in progress is "+shorten(after.InProgress))
	}
	return strings.Join(said, "; ")
}

// differ says which keys were added and removed, and whose texts are others.
func differ(before, after map[string]string, changed string) string {
	var added, removed, other []string
	for key, text := range after {
		if old, ok := before[key]; !ok {
			added = append(added, key)
		} else if old != text {
			other = append(other, key)
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			removed = append(removed, key)
		}
	}
	var said []string
	for _, l := range []struct {
		verb string
		keys []string
	}{{"added", added}, {"removed", removed}, {changed, other}} {
		if len(l.keys) > 0 {
			said = append(said, l.verb+" "+names(l.keys))
		}
	}
	return strings.Join(said, ", ")
}

func names(keys []string) string {
	slices.Sort(keys)
	var short []string
	for _, key := range keys[:min(most, len(keys))] {
		short = append(short, shorten(key))
	}
	if rest := len(keys) - most; rest > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(short, " "), rest)
	}
	return strings.Join(short, " ")
}

func typeTexts(types []Type) map[string]string {
	out := make(map[string]string, len(types))
	for _, t := range types {
		out[t.Name] = string(appendValue(nil, t.value()))
	}
	return out
}

func partitionTexts(m *Meta) map[string]string {
	out := make(map[string]string, len(m.Partitions))
	for id, nodes := range m.Partitions {
		out[id] = string(appendValue(nil, nodeValues(nodes)))
	}
	return out
}

func texts(object map[string]any) map[string]string {
	out := make(map[string]string, len(object))
	for key := range maps.Keys(object) {
		out[key] = string(appendValue(nil, object[key]))
	}
	return out
}
