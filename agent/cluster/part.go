package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
)

// part is one node's part in a snapshot that is being taken. It is undone when its call ends before commit.
type part struct {
	node   Member
	stream api.Node_PartClient
	cancel context.CancelFunc
}

// NodeError is what a node has answered.
type NodeError struct {
	Node string
	Err  error
}

func (e *NodeError) Error() string {
	text := status.Convert(e.Err).Message()
	if errors.Is(e.Err, context.DeadlineExceeded) {
		text = "it has not answered in time; see whether it and the network are well (graphvol cluster status)"
	}
	return fmt.Sprintf("node %s: %s", e.Node, text)
}

// Unwrap gives the node's own error.
func (e *NodeError) Unwrap() error { return e.Err }

// parts are those of all nodes.
type parts []*part

// openParts calls all nodes. life bounds the calls, ctx how long it may take.
func openParts(life, ctx context.Context, nodes []Member, dial Dialer) (parts, error) {
	var all parts
	for _, n := range nodes {
		client, err := dial(n)
		if err != nil {
			all.end()
			return nil, &NodeError{n.Name, err}
		}
		p, err := openPart(life, ctx, n, client)
		if err != nil {
			all.end()
			return nil, &NodeError{n.Name, err}
		}
		all = append(all, p)
	}
	return all, nil
}

// openPart calls a node. It waits a while for a connection: one that was cut is made anew with a pause in between, and is there when it is waited for.
func openPart(life, ctx context.Context, n Member, client api.NodeClient) (*part, error) {
	pctx, cancel := context.WithCancel(life)
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	stop := context.AfterFunc(ctx, cancel)
	stream, err := client.Part(pctx, grpc.WaitForReady(true))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			err = status.Error(codes.Unavailable, "it can't be reached; see whether it and the network are well (graphvol cluster status)")
		}
		return nil, err
	}
	return &part{n, stream, cancel}, nil
}

// end ends all calls.
func (all parts) end() {
	for _, p := range all {
		p.cancel()
	}
}

// step asks all nodes for a step at once, and gives their answers in the order of the parts. The first failure ends it, and all calls.
func (all parts) step(ctx context.Context, req *api.PartRequest) ([]*api.PartEvent, error) {
	events := make([]*api.PartEvent, len(all))
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range all {
		g.Go(func() (err error) {
			stop := context.AfterFunc(gctx, p.cancel)
			defer stop()
			events[i], err = p.ask(req)
			if err != nil && ctx.Err() != nil && status.Code(err) == codes.Canceled {
				err = context.Cause(ctx)
			}
			if err != nil {
				return &NodeError{p.node.Name, err}
			}
			return nil
		})
	}
	err := g.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%s took too long: %w", stepText(req.GetStep()), err)
	}
	return events, err
}

func (p *part) ask(req *api.PartRequest) (*api.PartEvent, error) {
	if err := p.stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // Recv has the reason
		return nil, err
	}
	ev, err := p.stream.Recv()
	switch {
	case err == nil && ev.GetDone() != req.GetStep():
		err = status.Errorf(codes.Internal, "%s was asked for, and %s answered: its version is another one", req.GetStep(), ev.GetDone())
	case status.Code(err) == codes.Unavailable: // the connection may be one of before the node was started anew
		err = status.Errorf(codes.Aborted, "the connection to it broke: %s", status.Convert(err).Message())
	}
	return ev, err
}

// commit has the part stored, and tells what has become of it.
func (p *part) commit() ([]*api.VolumePart, error) {
	if _, err := p.ask(&api.PartRequest{Step: api.PartRequest_STEP_COMMIT}); err != nil {
		return nil, err
	}
	ev, err := p.stream.Recv()
	if err != nil {
		return nil, err
	}
	return ev.GetVolumes(), nil
}

func stepText(s api.PartRequest_Step) string {
	return map[api.PartRequest_Step]string{
		api.PartRequest_STEP_PREPARE: "preparing", api.PartRequest_STEP_READY: "getting ready", api.PartRequest_STEP_HOLD: "closing the gates", api.PartRequest_STEP_CUT: "the cut",
		api.PartRequest_STEP_CHECK: "checking what has changed meanwhile",
	}[s]
}

// volumeParts is what a node tells of its volumes, as a record has it.
func volumeParts(list []*api.VolumePart) []VolumePart {
	out := make([]VolumePart, len(list))
	for i, v := range list {
		s := v.GetSnapshot()
		out[i] = VolumePart{
			Volume: v.GetVolume(), Snapshot: s.GetId(), State: s.GetState(), Hold: s.GetPause().AsDuration(),
			Manifest: s.GetManifestSha256(), Checksum: s.GetChecksumSha256(), Files: s.GetFiles(), Bytes: s.GetBytes(), Error: v.GetError(),
		}
		for _, c := range v.GetCopies() {
			out[i].Copies = append(out[i].Copies, Copy{c.GetUrls(), c.GetErasure(), c.GetEncrypted()})
		}
	}
	return out
}

func boundOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
