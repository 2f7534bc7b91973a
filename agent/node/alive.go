package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/cluster/liveness"
	"graphvol/agent/reach"
)

const (
	lookEvery  = 2 * time.Second // at etcd's list of nodes
	rememberBy = 24 * time.Hour  // a node that has left, and that no configuration names
)

// alive is what this node knows of the others being there (S7).
type alive struct {
	*Node
	table  *liveness.Table
	prober *liveness.Prober

	mu struct {
		sync.Mutex
		known map[string]seen
	}
}

// seen is a node as etcd last had it.
type seen struct {
	cluster.Member
	at     time.Time
	member bool // of the agents' own etcd, once at least
}

// left tells whether the node is gone for good: it was taken out of etcd's members, or is away for long.
func (s seen) left(now time.Time, members []string) bool {
	return s.member && !slices.Contains(members, s.Name) || now.Sub(s.at) > rememberBy
}

func (n *Node) newAlive() *alive {
	a := &alive{Node: n, table: liveness.NewTable(n.name, liveness.Config{})}
	a.prober = liveness.NewProber(a.table, a)
	a.mu.known = make(map[string]seen)
	return a
}

// run follows etcd's list and probes, until ctx ends.
func (a *alive) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { a.prober.Run(ctx) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		a.look(ctx)
		why, _ := a.clock.Paused()
		a.member.SetProblem(ctx, a.problemText(), why)
		a.tellHealth()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look takes over who is in etcd's list. Who isn't any more is remembered, since it may be cut off, but for those that were taken out for good.
func (a *alive) look(ctx context.Context) {
	there, err := a.members(ctx)
	now := time.Now()
	a.mu.Lock()
	members := a.etcd.MemberNames()
	for _, m := range there {
		a.mu.known[m.Name] = seen{m, now, a.mu.known[m.Name].member || slices.Contains(members, m.Name)}
	}
	names := slices.Clone(a.now.Load().file.Cluster.Nodes)
	for name, s := range a.mu.known {
		if s.left(now, members) && !slices.Contains(names, name) {
			delete(a.mu.known, name)
			continue
		}
		names = append(names, name)
	}
	a.mu.Unlock()
	slices.Sort(names)
	names = slices.Compact(names)
	a.table.SetMembers(names)
	for _, name := range names {
		lease := liveness.LeaseLost
		switch {
		case err != nil:
			lease = liveness.LeaseUnknown
		case slices.ContainsFunc(there, func(m cluster.Member) bool { return m.Name == name }):
			lease = liveness.LeaseHeld
		}
		a.table.SetLease(name, lease, now)
	}
}

// tellHealth says by the standard health service whether this node is in the cluster; that of the agent as a whole is whether it answers.
func (a *alive) tellHealth() {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if a.member.Err() != nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	a.health.SetServingStatus(api.Cluster_ServiceDesc.ServiceName, status)
}

// find gives a node as it was last seen.
func (a *alive) find(name string) (cluster.Member, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.mu.known[name]
	return s.Member, ok
}

// client gives a client of a node that was seen.
func (a *alive) client(name string) (api.NodeClient, error) {
	m, ok := a.find(name)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "the node %s was never seen", name)
	}
	return a.dialNode(m)
}

// Probe implements liveness.Dialer.
func (a *alive) Probe(ctx context.Context, peer string) error {
	c, err := a.client(peer)
	if err != nil {
		return err
	}
	res, err := c.Probe(ctx, &api.ProbeRequest{From: a.name})
	if !errors.Is(ctx.Err(), context.Canceled) { // else it wasn't given the time
		a.metrics.Heartbeat(peer, err == nil)
	}
	if err != nil {
		return fmt.Errorf("%s", agent.Message(err))
	}
	var reports []liveness.Report
	for _, r := range res.GetReports() {
		reports = append(reports, liveness.Report{Peer: r.GetPeer(), Age: r.GetAge().AsDuration(), Latency: r.GetLatency().AsDuration(), Error: r.GetError()})
	}
	a.table.Merge(peer, reports, time.Now())
	return nil
}

// ProbeVia implements liveness.Dialer.
func (a *alive) ProbeVia(ctx context.Context, via, peer string) error {
	c, err := a.client(via)
	if err != nil {
		return err
	}
	_, err = c.ProbeVia(ctx, &api.ProbeViaRequest{Node: peer})
	if status.Code(err) == codes.FailedPrecondition { // via has tried
		return fmt.Errorf("%w: %s", liveness.ErrNotReached, agent.Message(err))
	}
	return err
}

// reports is what this node tells others.
func (a *alive) reports() (out []*api.ProbeReport) {
	for _, r := range a.table.Reports(time.Now()) {
		out = append(out, &api.ProbeReport{Peer: r.Peer, Age: durationpb.New(r.Age), Latency: durationpb.New(r.Latency), Error: r.Error})
	}
	return out
}

// why tells what is known of a node that isn't in etcd's list, after it was probed once more.
func (a *alive) why(ctx context.Context, name string) string {
	v := a.prober.Confirm(ctx, name)
	return fmt.Sprintf("%s (%s)", v.State, strings.Join(v.Evidence, "; "))
}

// ProbeVia implements the API.
func (s *nodeService) ProbeVia(ctx context.Context, req *api.ProbeViaRequest) (*api.ProbeResponse, error) {
	c, err := s.alive.client(req.GetNode())
	if err != nil {
		return nil, statusOf(err)
	}
	ctx, cancel := context.WithTimeout(ctx, reach.CallTimeout)
	defer cancel()
	res, err := c.Probe(ctx, &api.ProbeRequest{From: s.name})
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, agent.Message(err))
	}
	return res, nil
}
