package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// manifestFormat is the version of Manifest.
const manifestFormat = 1

// Manifest describes a complete snapshot of the cluster (S4): what its nodes had at one moment. It is the same in every volume's store.
type Manifest struct {
	Format      int                        `json:"format"`
	ID          string                     `json:"snapshot_id"`
	Name        string                     `json:"name"`
	Parent      string                     `json:"parent,omitempty"` // id of the complete one before
	Created     time.Time                  `json:"created"`          // by the coordinator's clock
	Completed   time.Time                  `json:"completed"`
	Checksum    string                     `json:"checksum_sha256"` // see Sum
	Topology    Topology                   `json:"node_topology"`
	Metadata    map[string]json.RawMessage `json:"metadata,omitempty"`         // by node, with version stamps
	ClockOffset map[string]float64         `json:"clock_offsets_ms,omitempty"` // by node
	LongestHold float64                    `json:"longest_hold_ms"`
}

// Topology tells the nodes that took part, by name.
type Topology struct {
	Nodes []TopologyNode `json:"nodes"`
}

// TopologyNode is one of them.
type TopologyNode struct {
	Name    string           `json:"name"`
	Address string           `json:"address"`
	Volumes []TopologyVolume `json:"volumes"`
}

// TopologyVolume is one volume of a node, and its snapshot.
type TopologyVolume struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot_id"`
	Manifest string `json:"manifest_sha256"`
	Checksum string `json:"checksum_sha256"`
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Copies   []Copy `json:"copies,omitempty"` // where else its data is
}

// makeManifest describes a record all of whose parts are complete.
func makeManifest(rec *Record, parent string) *Manifest {
	m := &Manifest{
		Format: manifestFormat, ID: rec.ID, Name: rec.Name, Parent: parent, Created: rec.Created, Completed: rec.Ended,
		Metadata: make(map[string]json.RawMessage), ClockOffset: make(map[string]float64), LongestHold: milliseconds(rec.Hold),
	}
	for _, n := range rec.Nodes {
		t := TopologyNode{Name: n.Node, Address: n.Address}
		for _, v := range n.Volumes {
			t.Volumes = append(t.Volumes, TopologyVolume{v.Volume, v.Snapshot, v.Manifest, v.Checksum, v.Files, v.Bytes, v.Copies})
		}
		m.Topology.Nodes = append(m.Topology.Nodes, t)
		if len(n.Metadata) > 0 {
			m.Metadata[n.Node] = n.Metadata
		}
		if n.ClockOffset != nil {
			m.ClockOffset[n.Node] = milliseconds(*n.ClockOffset)
		}
	}
	m.Checksum = m.Sum()
	return m
}

// describe gives a record its manifest.
func (r *Record) describe(parent string) (err error) {
	r.Manifest, err = json.MarshalIndent(makeManifest(r, parent), "", "  ")
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Sum is the digest of all data: SHA-256 over a line "NODE/VOLUME MANIFEST_SHA256\n" for each volume, in the order of nodes and volumes.
func (m *Manifest) Sum() string {
	h := sha256.New()
	nodes := slices.SortedFunc(slices.Values(m.Topology.Nodes), func(a, b TopologyNode) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		volumes := slices.SortedFunc(slices.Values(n.Volumes), func(a, b TopologyVolume) int { return cmp.Compare(a.Name, b.Name) })
		for _, v := range volumes {
			fmt.Fprintf(h, "%s/%s %s\n", n.Name, v.Name, v.Manifest)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ParseManifest reads a manifest, and refuses one whose digest isn't that of its parts.
func ParseManifest(p []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(p, &m); err != nil {
		return nil, fmt.Errorf("the cluster's manifest is damaged: %w", err)
	}
	switch {
	case m.Format > manifestFormat:
		return nil, fmt.Errorf("the cluster's manifest has format %d, and this graphvol knows up to %d: use a newer one", m.Format, manifestFormat)
	case m.Format < 1, m.ID == "":
		return nil, fmt.Errorf("this is no manifest of a cluster's snapshot")
	case m.Sum() != m.Checksum:
		return nil, fmt.Errorf("the cluster's manifest of %s is damaged: its digest is not that of its parts", m.Name)
	}
	return &m, nil
}
