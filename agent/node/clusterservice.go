package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/cluster/liveness"
	"graphvol/agent/config"
	"graphvol/agent/traceid"
)

// clusterService is what people ask.
type clusterService struct {
	api.UnimplementedClusterServer
	*Node
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
	res := &api.ClusterStatus{Cluster: cmp.Or(s.boot.Cluster.Name, config.DefaultCluster), AnsweredBy: s.name}
	all, reports, err := s.fromEtcd(ctx, res)
	switch {
	case errors.Is(err, cluster.ErrEtcd): // that is when people ask, and this node has probed the others by itself
		res.Problem = err.Error()
	case err != nil:
		return nil, statusOf(err)
	}
	for _, v := range s.alive.table.All(time.Now()) {
		res.Nodes = append(res.Nodes, s.nodeOf(v, all, reports))
	}
	return res, nil
}

// fromEtcd puts into a status what etcd knows. It gives the nodes that are there, and which configurations they run.
func (s *clusterService) fromEtcd(ctx context.Context, res *api.ClusterStatus) (all []cluster.Member, reports []cluster.Applied, err error) {
	if all, err = s.members(ctx); err != nil {
		return nil, nil, err
	}
	if res.Coordinator, err = s.member.Coordinator(ctx); err != nil && !errors.Is(err, cluster.ErrNoCoordinator) {
		return nil, nil, err
	}
	for _, r := range disagreements(all) {
		res.Disagreements = append(res.Disagreements, r.String())
	}
	reports, err = s.configs.Reports(ctx)
	return all, reports, err
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
	node.Problem, node.Paused = cmp.Or(m.Problem, node.Problem), m.Paused
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
	if r.Kept != nil {
		version += ", lost in etcd"
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
		TraceId: traceid.Of(r.Traced(context.Background())),
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
