package node

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
	"graphvol/agent/clock"
	"graphvol/agent/cluster"
	"graphvol/agent/reach"
)

// newClock makes the monitor of this machine's clock.
func (n *Node) newClock() *clock.Monitor {
	return clock.New(clock.Config{Peers: n.clockPeers, Servers: func() []string { return n.now.Load().file.Preflight.NTP }, Log: n.log})
}

// clockPeers are the other nodes. Without etcd none is known.
func (n *Node) clockPeers() (peers []clock.Peer) {
	ctx, cancel := context.WithTimeout(n.background.ctx, reach.CallTimeout)
	defer cancel()
	all, err := n.members(ctx)
	if err != nil {
		return nil
	}
	for _, m := range all {
		if m.Name != n.name {
			peers = append(peers, clock.Peer{Name: m.Name, Exchange: func(ctx context.Context) (clock.Stamps, error) { return n.exchange(ctx, m) }})
		}
	}
	return peers
}

// exchange asks a node for its time.
func (n *Node) exchange(ctx context.Context, m cluster.Member) (clock.Stamps, error) {
	c, err := n.dialNode(m)
	if err != nil {
		return clock.Stamps{}, err
	}
	sent := time.Now()
	res, err := c.Probe(ctx, &api.ProbeRequest{From: n.name})
	if err != nil {
		return clock.Stamps{}, err
	}
	return clock.Stamps{
		Sent: sent, Received: res.GetReceived().AsTime(), Answered: res.GetSent().AsTime(), Arrived: time.Now(), Synchronised: res.GetSynchronised(),
	}, nil
}

// Probe implements the API.
func (s *nodeService) Probe(_ context.Context, req *api.ProbeRequest) (*api.ProbeResponse, error) {
	received := time.Now()
	s.alive.table.Heard(req.GetFrom(), received)
	res := &api.ProbeResponse{Name: s.name, Received: timestamppb.New(received), Synchronised: clock.Synchronised(), Reports: s.alive.reports()}
	res.Sent = timestamppb.Now()
	return res, nil
}

// clockOffset is how far this machine's clock is ahead; nil: unknown.
func (n *Node) clockOffset() *time.Duration {
	if e, ok := n.clock.Newest(); ok && e.Known {
		return &e.Offset
	}
	return nil
}

// checkClock refuses snapshots while the clock is wrong (S9).
func (n *Node) checkClock() error {
	if why, paused := n.clock.Paused(); paused {
		return status.Error(codes.FailedPrecondition, why)
	}
	return nil
}
