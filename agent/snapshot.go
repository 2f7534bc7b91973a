package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/index"
	"graphvol/snapshot"
)

// progressPause is how often figures are sent.
const progressPause = 100 * time.Millisecond

// Snapshot implements the API. The protocol, with what bounds each step:
//
//	slot      at most maxPending unsealed snapshots; waits at most for the timeout
//	scan      changes made while unmounted are known; the timeout
//	flush     the kernel hands over what it holds back; the timeout
//	barrier   the gate closes, requests in flight end, the epoch ends, the gate opens; cow's own bound
//	begin     the catalogue says pending; the order of barriers is the order of the catalogue and of the queue
//	seal      in the queue, in that order; no progress for the length of the timeout ends it
func (s *service) Snapshot(req *api.SnapshotRequest, stream api.Volume_SnapshotServer) error {
	if s.live == nil {
		return s.errNotMounted("there is nothing to take a snapshot of")
	}
	if err := stream.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_FLUSHING}); err != nil {
		return err
	}
	j, err := s.take(stream.Context(), req)
	if err != nil {
		return statusOf(stream.Context(), s.log, "the snapshot", err)
	}
	if err := stream.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_TAKEN, Snapshot: infoOf(j.snapshot())}); err != nil {
		return err
	}
	if req.GetNoWait() {
		return nil
	}
	return s.follow(stream, j)
}

// take goes through the protocol up to the queue.
func (s *service) take(ctx context.Context, req *api.SnapshotRequest) (*job, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.prepare(ctx, req); err != nil {
		return nil, err
	}
	j, err := s.takePrepared(ctx, req)
	if err != nil {
		s.queue.release()
		return nil, err
	}
	s.changed(ctx)
	return j, nil
}

// mayTake refuses early what would be refused after the barrier.
func (s *service) mayTake(req *api.SnapshotRequest) error {
	if s.heldBack() {
		return refuse(codes.Aborted, "the volume is being unmounted or upgraded, so no snapshot was taken: try again when that is done")
	}
	for _, tag := range req.GetTags() {
		if err := snapshot.CheckTag(tag); err != nil {
			return err
		}
	}
	name := req.GetName()
	if name == "" {
		return nil
	}
	list, err := s.repo.Snapshots()
	if err != nil {
		return err
	}
	for _, other := range list {
		if other.Name == name && other.State != index.StateFailed {
			return refuse(codes.AlreadyExists, fmt.Sprintf("there is a snapshot named %q already: choose another name, or delete that one (graphvol delete)", name))
		}
	}
	return nil
}

// prepare does what comes before the barrier. After success the caller has a slot.
func (s *service) prepare(ctx context.Context, req *api.SnapshotRequest) error {
	if err := s.mayTake(req); err != nil {
		return err
	}
	if err := s.queue.acquire(ctx); err != nil {
		return err
	}
	if err := s.flush(ctx); err != nil {
		s.queue.release()
		return err
	}
	return nil
}

func (s *service) flush(ctx context.Context) error {
	if err := s.live.WaitScan(ctx); err != nil {
		return slow(err, "looking for changes made while the volume was not mounted")
	}
	begin := time.Now()
	if err := s.live.Flush(ctx); err != nil {
		return slow(err, "flushing what the kernel holds back")
	}
	s.log.DebugContext(ctx, "flushed for a snapshot", "took", time.Since(begin))
	return nil
}

func (s *service) takePrepared(ctx context.Context, req *api.SnapshotRequest) (*job, error) {
	s.order.Lock()
	defer s.order.Unlock()
	src, pause, err := s.live.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	return s.enqueue(ctx, req, src, pause, nil)
}

// enqueue puts an ended epoch into the catalogue and the queue. s.order is held since before the barrier. The seal begins when approved is closed, unless that is nil.
func (s *service) enqueue(ctx context.Context, req *api.SnapshotRequest, src ended, pause time.Duration, approved <-chan struct{}) (*job, error) {
	snap, err := s.repo.Begin(req.GetName(), snapshot.BeginOptions{PauseNS: pause.Nanoseconds(), Epoch: src.Epoch(), Tags: req.GetTags(), Hold: req.GetHold()})
	if err != nil {
		src.Release(false)
		return nil, err
	}
	src.SetID(snap.ID)
	s.log.InfoContext(ctx, "the snapshot is taken", "id", snap.ID, "name", snap.Name, "epoch", src.Epoch(), "pause", pause)
	j, err := s.queue.put(ctx, snap, src, approved)
	if err != nil {
		src.Release(false)
		return nil, errors.Join(err, s.repo.Abandon(snap, err))
	}
	return j, nil
}

// slow tells which step used the time up.
func slow(err error, step string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{codes.DeadlineExceeded, step + " took too long, so no snapshot was taken and the volume works on: the disk below the backing is slow or hangs; try again when it is well", err}
	}
	return err
}

// follow tells how the seal goes, until it has ended.
func (s *service) follow(stream api.Volume_SnapshotServer, j *job) error {
	snap, err := s.watch(stream.Context(), j, func(p *api.Progress) error {
		return stream.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_SEALING, Snapshot: infoOf(j.snapshot()), Progress: p})
	})
	if err != nil {
		return err
	}
	return stream.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_COMPLETE, Snapshot: snap})
}

// watch waits for the end of a seal, and tells how far it is.
func (s *service) watch(ctx context.Context, j *job, tell func(*api.Progress) error) (*api.SnapshotInfo, error) {
	tick := time.NewTicker(progressPause)
	defer tick.Stop()
	for {
		p, news := j.figures()
		select {
		case <-j.done:
			snap, err := j.result()
			if err != nil {
				return nil, statusOf(ctx, s.log, "the snapshot", sealError(err, j.name()))
			}
			return infoOf(snap), nil
		case <-ctx.Done():
			return nil, statusOf(ctx, s.log, "waiting for the snapshot", ctx.Err())
		case <-news:
		}
		if err := tell(&api.Progress{DoneBytes: p.Bytes, DoneFiles: p.Files}); err != nil {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-j.done:
		}
	}
}

// sealError says that nothing but this one snapshot is lost.
func sealError(err error, name string) error {
	switch {
	case errors.Is(err, errStalled), errors.Is(err, errUnmounted), errors.Is(err, errNotCommitted):
		return &Error{codes.Aborted, fmt.Sprintf("the snapshot %s failed: %s; the next one covers what it would have held", name, err), err}
	}
	return err
}
