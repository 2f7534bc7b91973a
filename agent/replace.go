package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
)

// successorWait bounds the wait for a server after an upgrade: a new program may take a minute to show that it can't serve.
const successorWait = 5 * time.Minute

// ErrNotServing: an upgrade's program was started and does not serve; the one before does again.
var ErrNotServing = errors.New("the new program does not serve")

// UpgradeOptions say what shall serve a volume.
type UpgradeOptions struct {
	Program string        // absolute path
	Timeout time.Duration // for what is under way; 0: the agent's own bound
	Force   bool          // drop what is still under way then
	Waiting func(names []string)
}

// Upgraded is what an upgrade has done.
type Upgraded struct {
	Old, New *api.VolumeStatus
	Waited   time.Duration // of requests; 0: unknown
	Dropped  []string      // names of snapshots
}

// Upgrade has another program serve the mounted volume at p, and returns when it does. An error that is ErrNotServing comes with a result: the former
// program serves.
func Upgrade(ctx context.Context, p Place, o UpgradeOptions) (Upgraded, error) {
	var up Upgraded
	c, err := Connect(ctx, p, io.Discard)
	if err != nil {
		return up, err
	}
	defer c.Close()
	if c.Offline {
		return up, refuse(codes.FailedPrecondition, fmt.Sprintf("the volume of %s is not mounted, so it has no server to replace: the next mount is made by the program that you call", p.State))
	}
	if up.Old, err = c.Status(ctx, &api.StatusRequest{WithoutSizes: true}); err != nil {
		return up, err
	}
	if err := up.request(ctx, c, o); err != nil {
		return up, err
	}
	if up.New, err = awaitSuccessor(ctx, p, up.Old.GetServerPid()); err != nil {
		return up, err
	}
	r := up.New.GetRestart()
	up.Waited = r.GetWaited().AsDuration()
	if r.GetError() != "" {
		return up, &Error{codes.Aborted, fmt.Sprintf("%s does not serve: %s; graphvol %s serves %s again, its requests waited %s and none failed",
			o.Program, r.GetError(), up.New.GetVersion(), p.Mount.Point, up.Waited.Round(time.Millisecond)), ErrNotServing}
	}
	return up, nil
}

// request has the server prepare and ask its holder; it returns when that is done.
func (up *Upgraded) request(ctx context.Context, c *Client, o UpgradeOptions) error {
	req := &api.UpgradeRequest{Program: []byte(o.Program), Force: o.Force}
	if o.Timeout > 0 {
		req.Timeout = durationpb.New(o.Timeout)
	}
	stream, err := c.VolumeClient.Upgrade(ctx, req)
	if err != nil {
		return err
	}
	for asked := false; ; {
		ev, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case status.Code(err) == codes.Unavailable && asked:
			return nil // it ended before it could say goodbye
		case status.Code(err) == codes.Unimplemented:
			return refuse(codes.FailedPrecondition, fmt.Sprintf("the server of %s is too old for graphvol upgrade: unmount the volume, and mount it with the new program", c.Place.Mount.Point))
		case err != nil:
			return err
		}
		asked = asked || ev.GetRestarting()
		up.Dropped = append(up.Dropped, ev.GetDropped()...)
		if names := ev.GetWaiting(); len(names) > 0 && o.Waiting != nil {
			o.Waiting(names)
		}
	}
}

// awaitSuccessor waits until another process than old serves the volume.
func awaitSuccessor(ctx context.Context, p Place, old int64) (*api.VolumeStatus, error) {
	wait, cancel := context.WithTimeout(ctx, successorWait)
	defer cancel()
	for {
		st, err := statusAt(wait, p)
		var e *Error
		switch {
		case err == nil && st.GetServerPid() == 0:
			return nil, refuse(codes.Aborted, fmt.Sprintf("the volume was unmounted from %s meanwhile", p.Mount.Point))
		case err == nil && st.GetServerPid() != old:
			return st, nil
		case err != nil && !(errors.As(err, &e) && e.Code == codes.Unavailable):
			return nil, err
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, refuse(codes.DeadlineExceeded, fmt.Sprintf("no other server has begun to serve %s within %s: see %s/log/holder.log", p.Mount.Point, successorWait, p.State))
		case <-time.After(dialPause):
		}
	}
}

func statusAt(ctx context.Context, p Place) (*api.VolumeStatus, error) {
	c, err := Connect(ctx, p, io.Discard)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
}
