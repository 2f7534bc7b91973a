package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
)

const (
	// quietPause is how often something that is waited for is looked at, and told.
	quietPause = 100 * time.Millisecond
	// upgradeGrace is how long after the request to the holder this server may go on before snapshots can be taken again.
	upgradeGrace = time.Minute
)

// Upgrade implements the API.
func (s *service) Upgrade(req *api.UpgradeRequest, stream api.Volume_UpgradeServer) error {
	if s.live == nil {
		return s.errNotMounted("it has no server that could be replaced")
	}
	return s.upgrader.upgrade(req, stream, s)
}

// quieten keeps snapshots from beginning and waits until nothing is under way that a restart would cost.
func (s *service) quieten(req *api.UpgradeRequest, stream api.Volume_UpgradeServer) error {
	bound := s.timeout
	if req.GetTimeout() != nil {
		bound = req.GetTimeout().AsDuration()
	}
	s.holdBack(bound + upgradeGrace)
	ctx, cancel := context.WithTimeout(stream.Context(), bound)
	defer cancel()
	left, err := waitQuiet(ctx, s.underWay, func(names []string) error { return stream.Send(&api.UpgradeEvent{Waiting: names}) })
	switch {
	case err != nil:
		return err
	case stream.Context().Err() != nil:
		return stream.Context().Err()
	case len(left) == 0:
		return nil
	case !req.GetForce():
		return refuse(codes.FailedPrecondition, "still under way: "+strings.Join(left, ", ")+"; nothing was changed: wait, give it a longer --timeout, or drop it with --force")
	}
	dropped := s.queue.drop()
	s.log.WarnContext(ctx, "dropped for an upgrade", "under_way", left, "snapshots", dropped)
	return stream.Send(&api.UpgradeEvent{Dropped: dropped})
}

// underWay names what a restart of the server would cost.
func (s *service) underWay() []string {
	var names []string
	for _, name := range s.queue.pending() {
		names = append(names, "the snapshot "+name)
	}
	for _, name := range s.calls.running() {
		if name != snapshotCall || len(names) == 0 { // it waits for one of those
			names = append(names, name)
		}
	}
	return names
}

// waitQuiet waits until names has none, or ctx ends; it returns the last ones.
func waitQuiet(ctx context.Context, names func() []string, tell func([]string) error) ([]string, error) {
	tick := time.NewTicker(quietPause)
	defer tick.Stop()
	for {
		left := names()
		if len(left) == 0 {
			return nil, nil
		}
		if err := tell(left); err != nil {
			return left, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return left, nil
		}
	}
}

// settle finishes the pending snapshots while requests are still served: afterwards the database would wait for them.
func (s *service) settle(bound time.Duration) {
	s.holdBack(bound + upgradeGrace)
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	left, _ := waitQuiet(ctx, s.queue.pending, func([]string) error { return nil })
	if len(left) > 0 {
		s.log.Warn("snapshots are dropped, as they could not be stored in time before the restart", "names", s.queue.drop())
	}
}

// calls counts the long calls under way.
type calls struct {
	mu struct {
		sync.Mutex
		n map[string]int
	}
}

const snapshotCall = "a snapshot"

// count is a gRPC interceptor. Calls that end the server, or prepare for it, don't wait for themselves.
func (c *calls) count(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	name := ""
	switch info.FullMethod {
	case api.Volume_Snapshot_FullMethodName:
		name = snapshotCall
	case api.Volume_Restore_FullMethodName:
		name = "a restore"
	case api.Volume_Verify_FullMethodName:
		name = "a verification"
	case api.Volume_Prune_FullMethodName:
		name = "a prune"
	case api.Volume_Diff_FullMethodName:
		name = "a comparison"
	default:
		return handle(srv, stream)
	}
	c.add(name, 1)
	defer c.add(name, -1)
	return handle(srv, stream)
}

func (c *calls) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.n == nil {
		c.mu.n = make(map[string]int)
	}
	c.mu.n[name] += n
}

func (c *calls) running() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, n := range c.mu.n {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
