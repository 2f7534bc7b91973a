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
