package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/cluster/liveness"
)

// clusterService is what people ask.
type clusterService struct {
	api.UnimplementedClusterServer
	*Node
}

// TakeSnapshot implements the API.
func (s *clusterService) TakeSnapshot(req *api.TakeSnapshotRequest, stream api.Cluster_TakeSnapshotServer) error {
	ctx := stream.Context()
	name, other, err := s.coordinatorClient(ctx)
	if err != nil {
		return statusOf(err)
	}
	if other != nil {
		return passOn(ctx, name, other, req, stream)
	}
	_, err = s.coordinator.Snapshot(ctx, cluster.Request{Name: req.GetName(), NoWait: req.GetNoWait()}, func(phase string, rec cluster.Record) {
		// A caller that has left is noticed by ctx.
		_ = stream.Send(&api.TakeSnapshotEvent{Phase: phase, Snapshot: s.withDrift(ctx, snapshotOf(&rec))})
	})
	return statusOf(err)
}

// passOn asks the coordinator.
func passOn(ctx context.Context, name string, c api.ClusterClient, req *api.TakeSnapshotRequest, out api.Cluster_TakeSnapshotServer) error {
	in, err := c.TakeSnapshot(ctx, req)
	if err != nil {
		return unreachable(name, err)
	}
	for {
		ev, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreachable(name, err)
		}
		if err := out.Send(ev); err != nil {
			return err
		}
	}
}

// coordinatorClient finds the coordinator. Its client is nil if this node is it.
func (n *Node) coordinatorClient(ctx context.Context) (name string, c api.ClusterClient, err error) {
	if name, err = n.member.Coordinator(ctx); err != nil || name == n.name {
		return name, nil, err
	}
	all, err := n.members(ctx)
	if err != nil {
		return name, nil, err
	}
	i := slices.IndexFunc(all, func(m cluster.Member) bool { return m.Name == name })
	if i < 0 {
		return name, nil, cluster.ErrNoCoordinator
	}
	conn, err := n.peers.conn(all[i])
	if err != nil {
		return name, nil, err
	}
	return name, api.NewClusterClient(conn), nil
}

// DeleteClusterSnapshots implements the API.
func (s *clusterService) DeleteClusterSnapshots(ctx context.Context, req *api.DeleteClusterSnapshotsRequest) (*api.DeleteClusterSnapshotsResponse, error) {
	name, other, err := s.coordinatorClient(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	if other != nil {
		res, err := other.DeleteClusterSnapshots(ctx, req)
		return res, unreachable(name, err)
	}
	gone, err := s.coordinator.Delete(ctx, req.GetSnapshots())
	if err != nil {
		return nil, statusOf(err)
	}
	res := &api.DeleteClusterSnapshotsResponse{}
	for i := range gone {
		res.Deleted = append(res.Deleted, snapshotOf(&gone[i]))
	}
	return res, nil
}

func unreachable(name string, err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	return status.Errorf(codes.Unavailable, "the coordinator %s can't be reached from here, or has just died: %s; see graphvol cluster snapshots for what has become of it, and try again", name, agent.Message(err))
}

// ListClusterSnapshots implements the API.
func (s *clusterService) ListClusterSnapshots(ctx context.Context, _ *api.ListClusterSnapshotsRequest) (*api.ListClusterSnapshotsResponse, error) {
	all, err := s.records.List(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	res := &api.ListClusterSnapshotsResponse{}
	for i := range all {
		res.Snapshots = append(res.Snapshots, snapshotOf(&all[i]))
	}
	return res, nil
}

// GetCluster implements the API.
func (s *clusterService) GetCluster(ctx context.Context, _ *api.GetClusterRequest) (*api.ClusterStatus, error) {
	all, err := s.members(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	res := &api.ClusterStatus{Cluster: s.boot.Cluster.Name, AnsweredBy: s.name}
	if res.Cluster == "" {
		res.Cluster = cluster.DefaultName
	}
	if res.Coordinator, err = s.member.Coordinator(ctx); err != nil && !errors.Is(err, cluster.ErrNoCoordinator) {
		return nil, statusOf(err)
	}
	reports, err := s.configs.Reports(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	for _, v := range s.alive.table.All(time.Now()) {
		res.Nodes = append(res.Nodes, s.nodeOf(v, all, reports))
	}
	return res, nil
}

// nodeOf puts together what is known of a node.
func (s *clusterService) nodeOf(v liveness.Verdict, there []cluster.Member, reports []cluster.Applied) *api.ClusterNode {
	m, _ := s.alive.find(v.Name)
	if i := slices.IndexFunc(there, func(m cluster.Member) bool { return m.Name == v.Name }); i >= 0 {
		m = there[i]
	}
	node := &api.ClusterNode{Name: v.Name, Address: m.Address, Version: m.Version, State: string(v.State), Evidence: v.Evidence, Volumes: m.Volumes}
	if !m.Started.IsZero() {
		node.Started = timestamppb.New(m.Started)
	}
	for _, r := range reports {
		if r.Node == v.Name {
			node.ConfigVersion, node.Problem = configVersion(r), r.Error
		}
	}
	if v.Name == s.name {
		node.Problem = s.problemText()
		if d := s.clockOffset(); d != nil {
			node.ClockOffset = durationpb.New(*d)
		}
		node.Paused, _ = s.clock.Paused()
	}
	return node
}

// configVersion tells which configuration a node runs.
func configVersion(r cluster.Applied) string {
	version := "its own file"
	if r.Revision != 0 {
		version = fmt.Sprintf("revision %d", r.Revision)
	}
	if r.Refused != 0 {
		version += fmt.Sprintf(", refuses %d", r.Refused)
	}
	return version
}

func (n *Node) problemText() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for of, text := range n.mu.problems {
		all = append(all, of+": "+text)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// snapshotOf is a record as the API tells it.
func snapshotOf(r *cluster.Record) *api.ClusterSnapshot {
	out := &api.ClusterSnapshot{
		Id: r.ID, Name: r.Name, State: r.State, Created: timestamppb.New(r.Created), Hold: durationpb.New(r.Hold), Error: r.Error, Manifest: r.Manifest,
	}
	if !r.Ended.IsZero() {
		out.Took = durationpb.New(r.Ended.Sub(r.Created))
	}
	if m, err := cluster.ParseManifest(r.Manifest); len(r.Manifest) > 0 && err == nil {
		out.Parent, out.ChecksumSha256 = m.Parent, m.Checksum
	}
	for _, n := range r.Nodes {
		part := &api.NodePart{Node: n.Node}
		for _, v := range n.Volumes {
			part.Volumes = append(part.Volumes, &api.VolumePart{Volume: v.Volume, Error: v.Error, Snapshot: &api.SnapshotInfo{
				Id: v.Snapshot, State: v.State, Pause: durationpb.New(v.Hold), ManifestSha256: v.Manifest, ChecksumSha256: v.Checksum, Files: v.Files, Bytes: v.Bytes,
			}})
		}
		out.Nodes = append(out.Nodes, part)
	}
	return out
}
