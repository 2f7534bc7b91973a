package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/snapshot"
)

// Inventory implements the API.
func (s *nodeService) Inventory(ctx context.Context, req *api.InventoryRequest) (*api.InventoryResponse, error) {
	res := &api.InventoryResponse{}
	for _, v := range s.now.Load().volumes {
		inv := &api.VolumeInventory{Volume: v.label}
		err := v.call(ctx, func(c *agent.Client) error {
			list, err := c.ListSnapshots(ctx, &api.ListSnapshotsRequest{})
			for _, snap := range list.GetSnapshots() {
				if slices.Contains(snap.GetTags(), clusterTag) {
					inv.Snapshots = append(inv.Snapshots, snap)
				}
			}
			return err
		})
		if err == nil {
			inv.Manifests, err = v.manifests(req.GetKnown())
		}
		if err != nil {
			inv.Error = agent.Message(err)
		}
		res.Volumes = append(res.Volumes, inv)
	}
	return res, nil
}

// manifests reads those of the cluster's snapshots in the volume's store, but for the known ones.
func (v *volume) manifests(known []string) (all [][]byte, err error) {
	dir := filepath.Join(v.opts.State, "store", strings.TrimSuffix(snapshot.ClusterPrefix, "/"))
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range list {
		id := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if slices.Contains(known, id) || err != nil {
			continue
		}
		var p []byte
		if p, err = os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			all = append(all, p)
		}
	}
	return all, err
}

// Repair implements the API.
func (s *clusterService) Repair(ctx context.Context, req *api.RepairClusterRequest) (*api.RepairClusterResponse, error) {
	name, other, err := s.coordinatorClient(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	if other != nil {
		res, err := other.Repair(ctx, req)
		return res, unreachable(name, err)
	}
	found, err := s.coordinator.Repair(ctx, req.GetDryRun())
	if err != nil {
		return nil, statusOf(err)
	}
	res := &api.RepairClusterResponse{Away: found.Away}
	for _, f := range found.Findings {
		res.Findings = append(res.Findings, findingOf(f))
	}
	return res, nil
}

func findingOf(f cluster.Finding) *api.RepairFinding {
	return &api.RepairFinding{Snapshot: f.Snapshot, Id: f.ID, Node: f.Node, Volume: f.Volume, Problem: f.Problem, Done: f.Done}
}
