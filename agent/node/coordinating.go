package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/snapshot"
)

// What only the coordinator can do is done here if this node is it, and else passed on to it.

// TakeSnapshot implements the API.
func (s *clusterService) TakeSnapshot(req *api.TakeSnapshotRequest, stream api.Cluster_TakeSnapshotServer) error {
	ctx := stream.Context()
	if name := req.GetName(); name != "" {
		if err := snapshot.CheckName(name); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	name, other, err := s.coordinatorClient(ctx)
	if err != nil {
		return statusOf(err)
	}
	if other != nil {
		return unreachable(name, passOn(ctx, other, req, stream))
	}
	_, err = s.coordinator.Snapshot(ctx, cluster.Request{Name: req.GetName(), NoWait: req.GetNoWait()}, func(phase string, rec cluster.Record) {
		// A caller that has left is noticed by ctx.
		_ = stream.Send(&api.TakeSnapshotEvent{Phase: phase, Snapshot: s.withDrift(ctx, snapshotOf(&rec))})
	})
	return statusOf(err)
}

func passOn(ctx context.Context, to api.ClusterClient, req *api.TakeSnapshotRequest, out api.Cluster_TakeSnapshotServer) error {
	in, err := to.TakeSnapshot(ctx, req)
	if err != nil {
		return err
	}
	return api.Each(in, out.Send)
}

// DeleteClusterSnapshots implements the API.
func (s *clusterService) DeleteClusterSnapshots(ctx context.Context, req *api.DeleteClusterSnapshotsRequest) (*api.DeleteClusterSnapshotsResponse, error) {
	return onCoordinator(ctx, s.Node, api.ClusterClient.DeleteClusterSnapshots, req, func() (*api.DeleteClusterSnapshotsResponse, error) {
		gone, err := s.coordinator.Delete(ctx, req.GetSnapshots())
		res := &api.DeleteClusterSnapshotsResponse{}
		for i := range gone {
			res.Deleted = append(res.Deleted, snapshotOf(&gone[i]))
		}
		return res, err
	})
}

// Repair implements the API.
func (s *clusterService) Repair(ctx context.Context, req *api.RepairClusterRequest) (*api.RepairClusterResponse, error) {
	return onCoordinator(ctx, s.Node, api.ClusterClient.Repair, req, func() (*api.RepairClusterResponse, error) {
		found, err := s.coordinator.Repair(ctx, req.GetDryRun())
		res := &api.RepairClusterResponse{Away: found.Away}
		for _, f := range found.Findings {
			res.Findings = append(res.Findings, &api.RepairFinding{Snapshot: f.Snapshot, Id: f.ID, Node: f.Node, Volume: f.Volume, Problem: f.Problem, Done: f.Done})
		}
		return res, err
	})
}

// onCoordinator answers a call here, or has the coordinator answer it.
func onCoordinator[Req, Res any](
	ctx context.Context, n *Node, there func(api.ClusterClient, context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req, here func() (*Res, error),
) (*Res, error) {
	name, other, err := n.coordinatorClient(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	if other != nil {
		res, err := there(other, ctx, req)
		return res, unreachable(name, err)
	}
	res, err := here()
	if err != nil {
		return nil, statusOf(err)
	}
	return res, nil
}

const (
	electionPause    = 50 * time.Millisecond
	electionPatience = 5 * time.Second
)

// coordinatorName gives the coordinator's name. While none is elected, or this node is and hasn't noticed yet, it waits for a while.
func (n *Node) coordinatorName(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(electionPatience); ; {
		name, err := n.member.Coordinator(ctx)
		switch {
		case err == nil && (name != n.name || n.coordinator.Leads()):
			return name, nil
		case err != nil && !errors.Is(err, cluster.ErrNoCoordinator), time.Now().After(deadline):
			return name, cmp.Or(err, cluster.ErrNoCoordinator)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(electionPause):
		}
	}
}

// coordinatorClient finds the coordinator. Its client is nil if this node is it.
func (n *Node) coordinatorClient(ctx context.Context) (name string, c api.ClusterClient, err error) {
	if name, err = n.coordinatorName(ctx); err != nil || name == n.name {
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

func unreachable(name string, err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	return status.Errorf(codes.Aborted, "the coordinator %s can't be reached from here, or has just died: %s; see graphvol cluster snapshots for what has become of it, and try again", name, agent.Message(err))
}
