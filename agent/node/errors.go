package node

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/cluster"
)

// statusOf makes an error fit to leave the agent: a code, and its own words, which are for people. An agent never answers Unavailable to those who ask for it by a command: that is what gRPC says
// of an agent that isn't there.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	var node *cluster.NodeError
	if errors.As(err, &node) {
		code := status.Code(node.Err)
		switch {
		case code == codes.Unavailable: // that node is, and this one isn't
			code = codes.Aborted
		case errors.Is(node.Err, context.DeadlineExceeded):
			code = codes.DeadlineExceeded
		}
		return status.Error(code, err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, t := range []struct {
		is   error
		code codes.Code
	}{
		{cluster.ErrNotCoordinator, codes.Aborted}, {cluster.ErrNoCoordinator, codes.Aborted}, {cluster.ErrEtcd, codes.Aborted},
		{cluster.ErrBusy, codes.ResourceExhausted}, {cluster.ErrExists, codes.AlreadyExists}, {cluster.ErrNameTaken, codes.AlreadyExists},
		{cluster.ErrNotFound, codes.NotFound}, {cluster.ErrOpen, codes.FailedPrecondition}, {cluster.ErrChanged, codes.Aborted},
		{cluster.ErrEtcdMember, codes.AlreadyExists}, {cluster.ErrNoEtcdMember, codes.NotFound},
		{context.Canceled, codes.Canceled}, {context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		if errors.Is(err, t.is) {
			return status.Error(t.code, err.Error())
		}
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
