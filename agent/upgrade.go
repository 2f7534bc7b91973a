package agent

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

const (
	// quietPause is how often something that is waited for is looked at, and told.
	quietPause = 100 * time.Millisecond
	// upgradeGrace is how long after the request to the holder this server may go on before snapshots can be taken again.
	upgradeGrace = time.Minute
)

// holder is what the service needs of the process that holds the mount.
type holder interface {
	Restart(path string, program *os.File) error
	Restarted() (hold.Restart, time.Duration, bool)
	CanRestart() bool
}

var _ holder = (*hold.Session)(nil)

// Upgrade implements the API.
func (s *service) Upgrade(req *api.UpgradeRequest, stream api.Volume_UpgradeServer) error {
	if s.live == nil {
		return s.errNotMounted("it has no server that could be replaced")
	}
	if !s.upgrading.TryLock() {
		return refuse(codes.Aborted, "the volume is being upgraded already")
	}
	defer s.upgrading.Unlock()
	if !s.holder.CanRestart() {
		return refuse(codes.FailedPrecondition, "this kernel (Linux before 6.9) can't repeat requests, so files that are open would be lost: unmount the volume, and mount it with the new program")
	}
	c, err := openCandidate(stream.Context(), string(req.GetProgram()), s.facts.Mount)
	if err != nil {
		return statusOf(s.log, "the upgrade", err)
	}
	defer c.close()
	if err := stream.Send(&api.UpgradeEvent{Version: c.Version}); err != nil {
		return err
	}
	if err := s.quieten(req, stream); err != nil {
		s.holdBack(0)
		return statusOf(s.log, "the upgrade", err)
	}
	s.holdBack(upgradeGrace)
	s.log.Info("another program is to serve", "program", c.path, "version", c.Version)
	// Told first: afterwards the connection may end at any moment.
	if err := stream.Send(&api.UpgradeEvent{Restarting: true}); err != nil {
		s.holdBack(0)
		return err
	}
	if err := s.holder.Restart(c.path, c.file); err != nil {
		s.holdBack(0)
		return refuse(codes.FailedPrecondition, "the process that holds the mount is gone, so nobody could start another server: unmount the volume and mount it again")
	}
	return nil
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
	dropped := s.queue.pending()
	s.log.Warn("dropped for an upgrade", "under_way", left)
	s.queue.drop()
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
		s.log.Warn("snapshots are dropped, as they could not be stored in time before the restart", "names", left)
		s.queue.drop()
	}
}

// restartOf is how the polite restart went that this server came by; nil: it came otherwise.
func (s *service) restartOf() *api.Restart {
	r, waited, ok := s.holder.Restarted()
	if !ok {
		return nil
	}
	return &api.Restart{Program: []byte(r.Program), Error: r.Error, Waited: durationpb.New(waited)}
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
