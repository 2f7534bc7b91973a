package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

// unmountPause is how often an unmount tells what it waits for.
const unmountPause = 100 * time.Millisecond

// unmountSlow is how long an unmount may take before it is told what it may be waiting for.
const unmountSlow = 10 * time.Second

// unmountGrace is how long after its preparation an unmount may take before snapshots can be taken again.
const unmountGrace = time.Minute

// Unmount implements the API.
func (s *service) Unmount(req *api.UnmountRequest, stream api.Volume_UnmountServer) error {
	if s.live == nil {
		return s.errNotMounted("there is nothing to unmount")
	}
	bound := s.timeout
	if req.GetTimeout() != nil {
		bound = req.GetTimeout().AsDuration()
	}
	s.holdBack(bound + unmountGrace)
	limit := time.NewTimer(bound)
	defer limit.Stop()
	tick := time.NewTicker(unmountPause)
	defer tick.Stop()
	for {
		names := s.queue.pending()
		if len(names) == 0 {
			s.holdBack(unmountGrace)
			return stream.Send(&api.UnmountEvent{Ready: true})
		}
		if err := stream.Send(&api.UnmountEvent{Pending: int64(len(names))}); err != nil {
			s.holdBack(0)
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			names = s.queue.drop()
			s.log.WarnContext(stream.Context(), "snapshots are dropped, as they could not be stored in time before the unmount", "names", names)
			s.holdBack(unmountGrace)
			return stream.Send(&api.UnmountEvent{Ready: true, Dropped: names})
		case <-stream.Context().Done():
			s.holdBack(0)
			return statusOf(stream.Context(), s.log, "the unmount", stream.Context().Err())
		}
	}
}

// Resume implements the API.
func (s *service) Resume(context.Context, *api.ResumeRequest) (*api.ResumeResponse, error) {
	s.holdBack(0)
	return &api.ResumeResponse{}, nil
}

// Unmount unmounts the volume at p. Its agent finishes what is pending first, for as long as timeout (0: the agent's own
// bound), and drops what is left. What was dropped or cleaned up is told on notes. No snapshot is lost by an unmount that fails
// because the mount is busy, as long as the bound sufficed.
func Unmount(ctx context.Context, p Place, timeout time.Duration, notes io.Writer) error {
	if !p.Mounted() {
		return refuse(codes.FailedPrecondition, fmt.Sprintf("the volume of %s is not mounted", p.State))
	}
	if hold.Dead(ctx, p.Mount.Point) {
		n, err := hold.CleanStale(ctx, p.Mount.Point, "")
		if n > 0 {
			fmt.Fprintf(notes, "graphvol: removed the mount of a dead server at %s\n", p.Mount.Point)
		}
		return err
	}
	c, err := prepareUnmount(ctx, p, timeout, notes)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		// An agent that doesn't answer must not keep the volume mounted for ever.
		fmt.Fprintf(notes, "graphvol: %s; unmounting all the same\n", withoutAgent(p, err))
	}
	err = unmount(ctx, p, notes)
	if c != nil {
		if err != nil {
			c.Resume(ctx, &api.ResumeRequest{})
		}
		c.Close()
	}
	var busy *hold.BusyError
	var elsewhere *hold.ElsewhereError
	if errors.As(err, &busy) || errors.As(err, &elsewhere) {
		return refuse(codes.FailedPrecondition, err.Error())
	}
	return err
}

func unmount(ctx context.Context, p Place, notes io.Writer) error {
	done := make(chan error, 1)
	go func() { done <- hold.Unmount(ctx, p.Mount.Point, filepath.Join(p.State, hold.InfoFile)) }()
	select {
	case err := <-done:
		return err
	case <-time.After(unmountSlow):
		fmt.Fprintf(notes, "graphvol: unmounting %s takes long: what was changed last is still being written, or a container that was started meanwhile keeps it mounted\n", p.Mount.Point)
		return <-done
	}
}

// withoutAgent says why an agent couldn't finish what is pending.
func withoutAgent(p Place, err error) string {
	var e *Error
	if errors.As(err, &e) && e.Code == codes.Unavailable {
		return fmt.Sprintf("the server of %s doesn't answer", p.Mount.Point) // e advises to unmount
	}
	return Message(err)
}

// prepareUnmount has a mounted volume's agent finish what is pending.
func prepareUnmount(ctx context.Context, p Place, timeout time.Duration, notes io.Writer) (*Client, error) {
	c, err := Connect(ctx, p, notes)
	if err != nil {
		return nil, err
	}
	if c.Offline {
		return c, errors.New("the volume's agent is not there")
	}
	req := &api.UnmountRequest{}
	if timeout > 0 {
		req.Timeout = durationpb.New(timeout)
	}
	stream, err := c.VolumeClient.Unmount(ctx, req)
	if err != nil {
		return c, err
	}
	return c, api.Each(stream, func(ev *api.UnmountEvent) error {
		if d := ev.GetDropped(); len(d) > 0 {
			fmt.Fprintf(notes, "graphvol: dropped, as storing took too long: %s; what they would have held is in the next snapshot\n", strings.Join(d, ", "))
		}
		return nil
	})
}
