package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
)

// Local is this node's part in one snapshot. Its methods are called in their order, each after the one before has succeeded. Errors are gRPC's: their code and text go to
// the coordinator. codes.Aborted asks it to try again.
type Local interface {
	// Prepare runs hooks, reads the metadata, and prepares the volumes.
	Prepare(ctx context.Context) (Prepared, error)
	// Ready has this process and the volumes' servers run before others until Cut, or until the bound has passed.
	Ready(ctx context.Context, bound time.Duration) error
	// Hold closes all gates for the bound at most. They open by themselves.
	Hold(ctx context.Context, bound time.Duration) error
	// Cut ends all epochs, if the gates have been closed all the time, and opens them.
	Cut(ctx context.Context) ([]*api.VolumePart, error)
	// Check runs hooks, and fails if the metadata has changed since Prepare.
	Check(ctx context.Context) error
	// Commit has the volumes' snapshots stored.
	Commit(ctx context.Context) error
	// Wait tells what has become of them, when that is final.
	Wait(ctx context.Context) ([]*api.VolumePart, error)
	// End is called once, whatever came before: what isn't committed is undone.
	End()
}

// Prepared is what Prepare tells.
type Prepared struct {
	Metadata    []byte         // JSON; nil: none is read
	ClockOffset *time.Duration // nil: unknown
}

// Terms refuses orders of coordinators that have been replaced.
type Terms struct {
	mu struct {
		sync.Mutex
		newest int64
	}
}

// Accept notes the term of an order, and refuses one older than another that was seen.
func (t *Terms) Accept(term int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term < t.mu.newest {
		return status.Errorf(codes.FailedPrecondition, "another node has become the coordinator meanwhile (term %d, this order is of %d)", t.mu.newest, term)
	}
	t.mu.newest = term
	return nil
}

// ServePart is the Node service's Part over a Local.
func ServePart(stream api.Node_PartServer, terms *Terms, begin func(id, name string) Local) error {
	ctx := stream.Context()
	req, err := nextStep(stream, api.PartRequest_STEP_PREPARE)
	if err != nil {
		return err
	}
	if err := terms.Accept(req.GetTerm()); err != nil {
		return err
	}
	local := begin(req.GetId(), req.GetName())
	defer local.End()
	prepared, err := local.Prepare(ctx)
	if err != nil {
		return err
	}
	ev := &api.PartEvent{Done: api.PartRequest_STEP_PREPARE, Metadata: prepared.Metadata}
	if prepared.ClockOffset != nil {
		ev.ClockOffset = durationpb.New(*prepared.ClockOffset)
	}
	if err := stream.Send(ev); err != nil {
		return err
	}
	return serveCut(stream, local)
}

// serveCut does the steps after prepare.
func serveCut(stream api.Node_PartServer, local Local) error {
	ctx := stream.Context()
	for _, s := range []struct {
		step api.PartRequest_Step
		do   func(*api.PartRequest) ([]*api.VolumePart, error)
	}{
		{api.PartRequest_STEP_READY, func(r *api.PartRequest) ([]*api.VolumePart, error) {
			return nil, local.Ready(ctx, r.GetBound().AsDuration())
		}},
		{api.PartRequest_STEP_HOLD, func(r *api.PartRequest) ([]*api.VolumePart, error) {
			return nil, local.Hold(ctx, r.GetBound().AsDuration())
		}},
		{api.PartRequest_STEP_CUT, func(*api.PartRequest) ([]*api.VolumePart, error) { return local.Cut(ctx) }},
		{api.PartRequest_STEP_CHECK, func(*api.PartRequest) ([]*api.VolumePart, error) { return nil, local.Check(ctx) }},
		{api.PartRequest_STEP_COMMIT, func(*api.PartRequest) ([]*api.VolumePart, error) { return nil, local.Commit(ctx) }},
		{api.PartRequest_STEP_UNSPECIFIED, func(*api.PartRequest) ([]*api.VolumePart, error) { return local.Wait(ctx) }},
	} {
		var req *api.PartRequest
		var err error
		if s.step != api.PartRequest_STEP_UNSPECIFIED { // the end comes unasked
			if req, err = nextStep(stream, s.step); err != nil {
				return err
			}
		}
		volumes, err := s.do(req)
		if err != nil {
			return err
		}
		if err := stream.Send(&api.PartEvent{Done: s.step, Volumes: volumes}); err != nil {
			return err
		}
	}
	return nil
}

func nextStep(stream api.Node_PartServer, want api.PartRequest_Step) (*api.PartRequest, error) {
	req, err := stream.Recv()
	if err != nil {
		return nil, status.Error(codes.Aborted, fmt.Sprintf("the coordinator has left before %s", want))
	}
	if req.GetStep() != want {
		return nil, status.Errorf(codes.InvalidArgument, "%s was asked for where %s comes next: the coordinator's version is another one", req.GetStep(), want)
	}
	return req, nil
}
