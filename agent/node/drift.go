package node

import (
	"context"
	"maps"
	"slices"

	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/graphmeta"
	"graphvol/agent/placement"
)

// partitionsOf is the map of the graph's partitions in a snapshot; nil: nobody told.
func partitionsOf(m *cluster.Manifest) placement.Map {
	if m == nil {
		return nil
	}
	for _, node := range slices.Sorted(maps.Keys(m.Metadata)) {
		if meta, err := graphmeta.Decode(m.Metadata[node]); err == nil && len(meta.Partitions) > 0 {
			return meta.Partitions
		}
	}
	return nil
}

// withDrift adds how the graph's partitions lie, beside the parent.
func (n *Node) withDrift(ctx context.Context, s *api.ClusterSnapshot) *api.ClusterSnapshot {
	m, err := cluster.ParseManifest(s.GetManifest())
	if s.GetState() != cluster.StateComplete || err != nil {
		return s
	}
	now := partitionsOf(m)
	if now == nil {
		return s
	}
	s.Placement = placement.Measure(now).String()
	all, err := n.records.List(ctx)
	if err != nil {
		return s
	}
	i := slices.IndexFunc(all, func(r cluster.Record) bool { return r.ID == m.Parent })
	if i < 0 {
		return s
	}
	parent, err := cluster.ParseManifest(all[i].Manifest)
	before := partitionsOf(parent)
	if err != nil || before == nil {
		return s
	}
	if d := placement.Drift(before, now); !d.None() {
		s.Drift = d.String()
	}
	return s
}
