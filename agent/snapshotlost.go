package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/index"
)

// AfterLoss tells what became of a snapshot whose server ended while the command waited: err is why it waits no more, taken what it was told
// last, nil if that was nothing. The next server knows: the snapshot is complete, or is dropped, which becomes the error.
func (c *Client) AfterLoss(ctx context.Context, taken *api.SnapshotInfo, err error) (*api.SnapshotInfo, error) {
	var own *Error
	if !errors.As(err, &own) || own.Code != codes.Unavailable {
		return nil, err
	}
	if taken == nil {
		return nil, &Error{codes.Unavailable, "the volume's server ended before it said that the snapshot is taken, and is started again by itself: take it again", err}
	}
	next, cerr := Connect(ctx, c.Place, io.Discard)
	if cerr != nil {
		return nil, errors.Join(cerr, err)
	}
	defer next.Close()
	now, gerr := next.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: taken.GetId()})
	if gerr != nil {
		return nil, gerr
	}
	if now.GetState() == index.StateComplete {
		return now, nil
	}
	return nil, &Error{codes.Aborted, fmt.Sprintf("the snapshot %s was dropped: the volume's server ended before it was stored, and is started again by itself; take it again", taken.GetName()), err}
}
