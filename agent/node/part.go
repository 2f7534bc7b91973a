package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/graphmeta"
	"graphvol/agent/hook"
	"graphvol/agent/traceid"
)

// clusterTag is what volumes' snapshots of a snapshot of the cluster are tagged with.
const clusterTag = "cluster"

// part is this node's part in one snapshot of the cluster: all its volumes at once.
type part struct {
	*Node
	*current // as it was when the part began
	id, name string
	parts    []*volumePart
	hooks    *hooks
	before   *graphmeta.Meta // what the graph was; nil: none is read
	relax    func()          // ends what Ready began

	life   context.Context // of the volumes' calls
	cancel context.CancelFunc
}

var _ cluster.Local = (*part)(nil)

// newPart makes one that goes on when ctx has ended.
func (n *Node) newPart(ctx context.Context, id, name string) *part {
	p := &part{Node: n, current: n.now.Load(), id: id, name: name, relax: func() {}}
	p.life, p.cancel = context.WithCancel(traceid.Follow(context.Background(), ctx))
	return p
}

// Prepare implements cluster.Local.
func (p *part) Prepare(ctx context.Context) (cluster.Prepared, error) {
	p.log.InfoContext(ctx, "preparing a snapshot of the cluster", "id", p.id, "name", p.name)
	if len(p.volumes) == 0 {
		return cluster.Prepared{}, status.Error(codes.FailedPrecondition, "it has no volumes")
	}
	if err := p.checkClock(); err != nil {
		return cluster.Prepared{}, p.failed(ctx, "clock", err)
	}
	if err := p.preflight(ctx); err != nil {
		return cluster.Prepared{}, p.failed(ctx, "preflight", err)
	}
	metadata, err := p.readMetadata(ctx) // before the hooks: a database at rest might not answer
	if err != nil {
		return cluster.Prepared{}, p.failed(ctx, "metadata", err)
	}
	if p.hooks, err = p.preHooks(ctx, p.volumes, p.name); err != nil {
		return cluster.Prepared{}, p.failed(ctx, "hooks", err)
	}
	for _, v := range p.volumes {
		vp, err := openVolumePart(ctx, p.life, v)
		if err != nil {
			return cluster.Prepared{}, p.failed(ctx, "prepare", err)
		}
		p.parts = append(p.parts, vp)
	}
	req := &api.CutRequest{Step: api.CutRequest_STEP_PREPARE, Snapshot: &api.SnapshotRequest{Name: p.name, Tags: []string{clusterTag}, Hold: keptFor + p.name}}
	_, err = p.all(ctx, req)
	return cluster.Prepared{Metadata: metadata, ClockOffset: p.clockOffset()}, p.failed(ctx, "prepare", err)
}

// Ready implements cluster.Local.
func (p *part) Ready(ctx context.Context, bound time.Duration) error {
	p.relax = p.urgent(ctx, bound)
	_, err := p.all(ctx, &api.CutRequest{Step: api.CutRequest_STEP_READY, Bound: durationpb.New(bound)})
	return p.failed(ctx, "ready", err)
}

// Hold implements cluster.Local.
func (p *part) Hold(ctx context.Context, bound time.Duration) error {
	_, err := p.all(ctx, &api.CutRequest{Step: api.CutRequest_STEP_HOLD, Bound: durationpb.New(bound)})
	return p.failed(ctx, "hold", err)
}

// Cut implements cluster.Local.
func (p *part) Cut(ctx context.Context) ([]*api.VolumePart, error) {
	events, err := p.all(ctx, &api.CutRequest{Step: api.CutRequest_STEP_CUT})
	p.relax() // before the hooks: nothing is started until then
	if err != nil {
		return nil, p.failed(ctx, "cut", err)
	}
	p.hooks.startPost(p.Node, hook.Taken)
	var out []*api.VolumePart
	for i, ev := range events {
		v := p.parts[i]
		v.cut = ev.GetSnapshot().GetId()
		p.metrics.Hold(v.label, ev.GetSnapshot().GetPause().AsDuration())
		out = append(out, &api.VolumePart{Volume: v.label, Snapshot: ev.GetSnapshot(), Copies: v.copies})
	}
	return out, nil
}

// Check implements cluster.Local.
func (p *part) Check(ctx context.Context) error {
	p.hooks.wait()
	if err := p.checkMetadata(ctx); err != nil {
		return p.failed(ctx, "check", err)
	}
	for _, v := range p.parts { // last, as reading the metadata takes time
		if err := v.checkPending(ctx); err != nil {
			return p.failed(ctx, "check", err)
		}
	}
	return nil
}

// Commit implements cluster.Local.
func (p *part) Commit(ctx context.Context) error {
	_, err := p.all(ctx, &api.CutRequest{Step: api.CutRequest_STEP_COMMIT})
	return p.failed(ctx, "commit", err)
}

// Wait implements cluster.Local.
func (p *part) Wait(ctx context.Context) ([]*api.VolumePart, error) {
	out := make([]*api.VolumePart, len(p.parts))
	var all sync.WaitGroup
	for i, v := range p.parts {
		all.Go(func() {
			out[i] = v.wait()
			p.sealed(out[i])
		})
	}
	all.Wait()
	return out, ctx.Err()
}

// End implements cluster.Local.
func (p *part) End() {
	p.cancel()
	p.relax()
	if p.hooks != nil {
		p.hooks.startPost(p.Node, hook.Failed)
		p.hooks.wait()
	}
	for _, v := range p.parts {
		if err := v.client.Close(); err != nil {
			p.log.WarnContext(p.life, "closing a volume's connection", "volume", v.label, "err", err)
		}
	}
}

// all asks all volumes for a step at once. The first failure ends it.
func (p *part) all(ctx context.Context, req *api.CutRequest) ([]*api.CutEvent, error) {
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	events := make([]*api.CutEvent, len(p.parts))
	var g errgroup.Group
	for i, v := range p.parts {
		g.Go(func() (err error) {
			if events[i], err = v.ask(req); err != nil {
				p.cancel() // the others need not go on
			}
			return err
		})
	}
	return events, g.Wait()
}

// failed puts an error into the words and the code for the coordinator.
func (p *part) failed(ctx context.Context, step string, err error) error {
	if err == nil {
		return nil
	}
	p.log.WarnContext(ctx, "this node's part of a snapshot of the cluster has failed", "id", p.id, "step", step, "err", err)
	return status.Error(status.Code(err), agent.Message(err))
}

// volumePart is one volume's part.
type volumePart struct {
	*volume
	client *agent.Client
	stream api.Volume_CutClient
	copies []*api.RemoteInfo
	cut    string // id of the snapshot, after Cut
}

// openVolumePart connects to a volume. ctx bounds connecting, life the call.
func openVolumePart(ctx, life context.Context, v *volume) (*volumePart, error) {
	c, err := v.connect(ctx)
	if err != nil {
		return nil, v.said(err)
	}
	st, err := c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		return nil, errors.Join(v.said(err), c.Close())
	}
	stream, err := c.Cut(life)
	if err != nil {
		return nil, errors.Join(v.said(err), c.Close())
	}
	return &volumePart{volume: v, client: c, stream: stream, copies: st.GetRemotes()}, nil
}

// said tells which volume has failed, if err does.
func (v *volume) said(err error) error {
	if err == nil {
		return nil
	}
	return &agent.Error{Code: status.Code(err), Message: fmt.Sprintf("volume %s: %s", v.label, agent.Message(err)), Err: err}
}

func (v *volumePart) ask(req *api.CutRequest) (*api.CutEvent, error) {
	if err := v.stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // Recv has the reason
		return nil, v.said(err)
	}
	ev, err := v.stream.Recv()
	if err != nil {
		return nil, v.said(err)
	}
	if ev.GetDone() != req.GetStep() {
		return nil, v.said(status.Errorf(codes.Internal, "%s was asked for, and %s answered", req.GetStep(), ev.GetDone()))
	}
	return ev, nil
}

// checkPending fails if the volume has lost its part: its server has ended since the cut. Nothing is decided then, so it can be tried again.
func (v *volumePart) checkPending(ctx context.Context) error {
	info, err := v.client.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: v.cut})
	switch {
	case err != nil:
		return v.said(err)
	case info.GetState() != "pending":
		return v.said(status.Error(codes.Aborted, "its server has ended before the snapshot was decided on: "+info.GetError()))
	}
	return nil
}

// wait tells what has become of the snapshot.
func (v *volumePart) wait() *api.VolumePart {
	out := &api.VolumePart{Volume: v.label}
	for {
		ev, err := v.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			out.Error = agent.Message(err)
			return out
		}
		out.Snapshot = ev.GetSnapshot()
	}
}
