package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/fs/cow"
	"graphvol/internal/priority"
)

// Bounds of what a caller may ask for.
const (
	maxHold  = 10 * time.Second // a database whose writes hang for longer gives up
	maxReady = 2 * maxHold      // other processes wait
)

// cut is one volume's part in a snapshot over several (docs/coordination.md). It lives as long as the call: what isn't committed when that ends is undone.
type cut struct {
	*service
	stream api.Volume_CutServer
	steps  <-chan *api.CutRequest // closed when the caller asks for no more
	req    *api.SnapshotRequest
}

// Cut implements the API.
func (s *service) Cut(stream api.Volume_CutServer) error {
	if s.live == nil {
		return s.errNotMounted("there is nothing to take a snapshot of")
	}
	c := &cut{service: s, stream: stream, steps: receive(stream)}
	err := c.run()
	if err != nil {
		s.log.InfoContext(stream.Context(), "a part of a snapshot over several volumes has ended", "err", err)
	}
	return statusOf(stream.Context(), s.log, "the snapshot", err)
}

// receive reads what the caller asks for, beside what is done.
func receive(stream api.Volume_CutServer) <-chan *api.CutRequest {
	steps := make(chan *api.CutRequest)
	go func() {
		defer close(steps)
		for {
			req, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case steps <- req:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return steps
}

// next waits for the next step.
func (c *cut) next(ctx context.Context, want api.CutRequest_Step) (*api.CutRequest, error) {
	select {
	case req, ok := <-c.steps:
		switch {
		case !ok:
			return nil, refuse(codes.Aborted, fmt.Sprintf("the caller has left before %s", want))
		case req.GetStep() != want:
			return nil, refuse(codes.InvalidArgument, fmt.Sprintf("%s was asked for where %s comes next", req.GetStep(), want))
		}
		return req, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *cut) done(step api.CutRequest_Step) error {
	return c.stream.Send(&api.CutEvent{Done: step})
}

func (c *cut) run() error {
	ctx, cancel := context.WithTimeout(c.stream.Context(), c.timeout)
	defer cancel()
	first, err := c.next(ctx, api.CutRequest_STEP_PREPARE)
	if err != nil {
		return err
	}
	c.req = first.GetSnapshot()
	if err := c.prepare(ctx, c.req); err != nil {
		return err
	}
	approved := make(chan struct{})
	j, err := c.cutPrepared(ctx, approved)
	if err != nil {
		c.queue.release()
		return err
	}
	c.changed(ctx)
	if err := c.commit(ctx, j); err != nil {
		j.cancel(errNotCommitted)
		return err
	}
	close(approved)
	return c.follow(j)
}

// cutPrepared does the steps from prepared to cut, after which the queue has the slot.
func (c *cut) cutPrepared(ctx context.Context, approved <-chan struct{}) (*job, error) {
	if err := c.live.Ready(ctx); err != nil {
		return nil, slow(err, "making room for the next changes")
	}
	if err := c.done(api.CutRequest_STEP_PREPARE); err != nil {
		return nil, err
	}
	relax, err := c.ready(ctx)
	if err != nil {
		return nil, err
	}
	defer relax()
	bound, err := c.nextBounded(ctx, api.CutRequest_STEP_HOLD, maxHold)
	if err != nil {
		return nil, err
	}
	// Before the hold, which excludes barriers: who waits for one has this lock.
	c.order.Lock()
	defer c.order.Unlock()
	return c.cutHeld(ctx, bound, approved)
}

// ready has this process run before others, so that it isn't waited for while the gates of all volumes are closed.
func (c *cut) ready(ctx context.Context) (relax func(), err error) {
	bound, err := c.nextBounded(ctx, api.CutRequest_STEP_READY, maxReady)
	if err != nil {
		return nil, err
	}
	relax, err = priority.Urgent(bound)
	if err != nil {
		c.log.DebugContext(ctx, "a hold may be longer on a busy machine", "err", err)
	}
	if err := c.done(api.CutRequest_STEP_READY); err != nil {
		relax()
		return nil, err
	}
	return relax, nil
}

// nextBounded waits for a step for which writers, or other processes, wait.
func (c *cut) nextBounded(ctx context.Context, want api.CutRequest_Step, most time.Duration) (bound time.Duration, err error) {
	req, err := c.next(ctx, want)
	if err != nil {
		return 0, err
	}
	bound = req.GetBound().AsDuration()
	if bound <= 0 || bound > most {
		return 0, refuse(codes.InvalidArgument, fmt.Sprintf("%s can't last %v: more than 0 and up to %v are taken", want, bound, most))
	}
	return bound, nil
}

func (c *cut) cutHeld(ctx context.Context, bound time.Duration, approved <-chan struct{}) (*job, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	h, err := c.live.Hold(ctx, bound)
	if err != nil {
		return nil, slow(err, "closing the gate")
	}
	defer h.Release()
	if err := c.done(api.CutRequest_STEP_HOLD); err != nil {
		return nil, err
	}
	if _, err := c.next(ctx, api.CutRequest_STEP_CUT); err != nil {
		return nil, tooLate(err, bound)
	}
	src, pause, err := h.Cut()
	if err != nil {
		return nil, tooLate(err, bound)
	}
	return c.enqueue(ctx, c.req, src, pause, approved)
}

// tooLate says that the gate had to be opened.
func tooLate(err error, bound time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cow.ErrHoldOver) {
		return &Error{codes.DeadlineExceeded, fmt.Sprintf("too late: writers were let go after %v, since the other volumes were not ready in time; see which one was slow (graphvol cluster status), and try again", bound), err}
	}
	return err
}

// commit waits for the decision.
func (c *cut) commit(ctx context.Context, j *job) error {
	if err := c.stream.Send(&api.CutEvent{Done: api.CutRequest_STEP_CUT, Snapshot: infoOf(j.snapshot())}); err != nil {
		return err
	}
	_, err := c.next(ctx, api.CutRequest_STEP_COMMIT)
	return err
}

// follow tells how the seal goes. It goes on if the caller leaves.
func (c *cut) follow(j *job) error {
	if err := c.stream.Send(&api.CutEvent{Done: api.CutRequest_STEP_COMMIT, Snapshot: infoOf(j.snapshot())}); err != nil {
		return err
	}
	snap, err := c.watch(c.stream.Context(), j, func(p *api.Progress) error {
		return c.stream.Send(&api.CutEvent{Snapshot: infoOf(j.snapshot()), Progress: p})
	})
	if err != nil {
		return err
	}
	return c.stream.Send(&api.CutEvent{Snapshot: snap})
}
