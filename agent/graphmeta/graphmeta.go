package graphmeta

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxLength is the greatest length of a graph's JSON, in bytes.
const MaxLength = 16 << 20

// ErrInProgress is the class of errors that say that the graph is being changed. What changes it is part of the text. It passes: try again.
var ErrInProgress = errors.New("the graph is being changed")

// Meta is what a graph is. As Decode gives it, lists are in their canonical order. As JSON it is its canonical encoding.
type Meta struct {
	Version     string              // the database's stamp
	VertexTypes []Type              // no name comes twice
	EdgeTypes   []Type              // no name comes twice
	Partitions  map[string][]string // of a partition's id to the names of the nodes that have it
	InProgress  string              // what is changing the graph; empty: nothing

	extra map[string]any // all other keys
}

// Type is a type of vertices or edges.
type Type struct {
	Name  string
	extra map[string]any // whatever else there is to say of it
}

// The keys that are known.
const (
	keyVersion     = "version"
	keyVertexTypes = "vertex_types"
	keyEdgeTypes   = "edge_types"
	keyPartitions  = "partitions"
	keyInProgress  = "in_progress"
	keyName        = "name" // of a type
)

// Quiet is an ErrInProgress if something changes the graph.
func (m *Meta) Quiet() error {
	if m.InProgress == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInProgress, shorten(m.InProgress))
}

// Digest is the SHA-256 of the canonical encoding, in hexadecimal.
func (m *Meta) Digest() string {
	sum := sha256.Sum256(m.Encode())
	return hex.EncodeToString(sum[:])
}

// Encode gives the canonical encoding.
func (m *Meta) Encode() []byte {
	all := with(m.extra, keyVersion, m.Version)
	if len(m.VertexTypes) > 0 {
		all[keyVertexTypes] = typeValues(m.VertexTypes)
	}
	if len(m.EdgeTypes) > 0 {
		all[keyEdgeTypes] = typeValues(m.EdgeTypes)
	}
	if len(m.Partitions) > 0 {
		parts := make(map[string]any, len(m.Partitions))
		for id, nodes := range m.Partitions {
			parts[id] = nodeValues(nodes)
		}
		all[keyPartitions] = parts
	}
	if m.InProgress != "" {
		all[keyInProgress] = m.InProgress
	}
	return appendValue(nil, all)
}

// MarshalJSON gives the canonical encoding.
func (m Meta) MarshalJSON() ([]byte, error) { return m.Encode(), nil }

// UnmarshalJSON is Decode.
func (m *Meta) UnmarshalJSON(p []byte) error {
	d, err := Decode(p)
	if err == nil {
		*m = *d
	}
	return err
}

func typeValues(types []Type) []any {
	var out []any
	for _, t := range slices.SortedFunc(slices.Values(types), byName) {
		out = append(out, t.value())
	}
	return out
}

func byName(a, b Type) int { return strings.Compare(a.Name, b.Name) }

func (t Type) value() any {
	if len(t.extra) == 0 {
		return t.Name
	}
	return with(t.extra, keyName, t.Name)
}

func nodeValues(nodes []string) []any {
	var out []any
	for _, n := range slices.Sorted(slices.Values(nodes)) {
		out = append(out, n)
	}
	return out
}

// with is a copy of a JSON object with another key.
func with(object map[string]any, key string, v any) map[string]any {
	out := make(map[string]any, len(object)+1)
	for k, old := range object {
		out[k] = old
	}
	out[key] = v
	return out
}
