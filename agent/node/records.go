package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/snapshot"
)

// keptFor begins the reason for which volumes' snapshots of a snapshot of the cluster are kept.
const keptFor = "part of the cluster's snapshot "

// follow keeps this node's volumes in step with the records, until ctx ends: what is complete is signed off everywhere, also where that was missed, and what is left of
// failed ones is deleted.
func (n *Node) follow(ctx context.Context) {
	n.records.Watch(ctx, func(all []cluster.Record) {
		if err := n.reconcile(ctx, all); err != nil && ctx.Err() == nil {
			n.log.Warn("the volumes aren't in step with the cluster's records; it is tried again at their next change", "err", err)
		}
	})
}

func (n *Node) reconcile(ctx context.Context, all []cluster.Record) error {
	var errs []error
	newer := false // a complete one exists that is newer: the next increment isn't relative to what is deleted
	for i := len(all) - 1; i >= 0; i-- {
		rec := &all[i]
		ctx := rec.Traced(ctx)
		part := n.partOf(rec)
		switch {
		case part == nil:
		case rec.State == cluster.StateComplete:
			newer = true
			errs = append(errs, n.signOff(ctx, rec.ID, rec.Name, rec.Manifest, part))
		case rec.State == cluster.StateFailed && newer:
			errs = append(errs, n.drop(ctx, rec.ID, part))
		}
	}
	return errors.Join(errs...)
}

// partOf gives what this node has of a record; nil: nothing.
func (n *Node) partOf(rec *cluster.Record) []cluster.VolumePart {
	for _, p := range rec.Nodes {
		if p.Node == n.name {
			return p.Volumes
		}
	}
	return nil
}

// signOff stores the manifest beside each volume's snapshot, which is kept from then on. What is done already is not done again.
func (n *Node) signOff(ctx context.Context, id, name string, manifest []byte, part []cluster.VolumePart) error {
	return n.eachVolume(ctx, part, func(v *volume, snap string) error {
		if v.signed(id) {
			return nil
		}
		return v.call(ctx, func(c *agent.Client) error {
			_, err := c.Hold(ctx, &api.HoldRequest{Snapshots: []string{snap}, Reason: keptFor + name})
			if err != nil {
				return err
			}
			_, err = c.SignOff(ctx, &api.SignOffRequest{Id: id, Manifest: manifest})
			return err
		})
	})
}

// signed tells whether the volume's store has the manifest.
func (v *volume) signed(id string) bool {
	_, err := os.Stat(filepath.Join(v.opts.State, "store", filepath.FromSlash(snapshot.ClusterObject(id))))
	return err == nil
}

// drop deletes the volumes' snapshots, and the manifest. Those that aren't there are no error.
func (n *Node) drop(ctx context.Context, id string, part []cluster.VolumePart) error {
	return n.eachVolume(ctx, part, func(v *volume, snap string) error {
		return v.call(ctx, func(c *agent.Client) error {
			if _, err := c.SignOff(ctx, &api.SignOffRequest{Id: id}); err != nil {
				return err
			}
			info, err := c.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: snap})
			if status.Code(err) == codes.NotFound || err == nil && info.GetState() != "complete" {
				return nil
			}
			if err == nil {
				_, err = c.Hold(ctx, &api.HoldRequest{Snapshots: []string{snap}})
			}
			if err == nil {
				_, err = c.Delete(ctx, &api.DeleteRequest{Snapshots: []string{snap}})
			}
			return err
		})
	})
}

// eachVolume calls fn for each volume of a part that has a snapshot, at the same time. On one volume only one fn runs: a list of records may be old, and what is being dropped would be held
// again by who signs it off.
func (n *Node) eachVolume(ctx context.Context, part []cluster.VolumePart, fn func(v *volume, snap string) error) error {
	errs := make([]error, len(part))
	var all sync.WaitGroup
	for i, p := range part {
		v := n.now.Load().find(p.Volume)
		if p.Snapshot == "" || v == nil { // one that isn't configured any more is nobody's here
			continue
		}
		all.Go(func() {
			done, err := n.keeping.take(ctx, v.label)
			if err == nil {
				err = fn(v, p.Snapshot)
				done()
			}
			if err != nil {
				errs[i] = v.said(err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// call calls the volume's server.
func (v *volume) call(ctx context.Context, fn func(*agent.Client) error) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	err = fn(c)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// SignOff implements the API.
func (s *nodeService) SignOff(ctx context.Context, req *api.SignOffRequest) (*api.SignOffResponse, error) {
	m, err := cluster.ParseManifest(req.GetManifest())
	if err != nil || m.ID != req.GetId() {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("that isn't the manifest of %s: %v", req.GetId(), err))
	}
	i := slices.IndexFunc(m.Topology.Nodes, func(t cluster.TopologyNode) bool { return t.Name == s.name })
	if i < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the node %s has no part in it", s.name)
	}
	var part []cluster.VolumePart
	for _, v := range m.Topology.Nodes[i].Volumes {
		part = append(part, cluster.VolumePart{Volume: v.Name, Snapshot: v.Snapshot})
	}
	return &api.SignOffResponse{}, volumeStatus(s.signOff(ctx, m.ID, m.Name, req.GetManifest(), part))
}

// Drop implements the API.
func (s *nodeService) Drop(ctx context.Context, req *api.DropRequest) (*api.DropResponse, error) {
	var part []cluster.VolumePart
	for _, v := range req.GetVolumes() {
		part = append(part, cluster.VolumePart{Volume: v.GetVolume(), Snapshot: v.GetSnapshot().GetId()})
	}
	return &api.DropResponse{}, volumeStatus(s.drop(ctx, req.GetId(), part))
}

// volumeStatus is what volumes have said, for the coordinator.
func volumeStatus(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(status.Code(err), agent.Message(err))
}
