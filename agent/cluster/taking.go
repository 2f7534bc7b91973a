package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
)

// taking is one snapshot on its way.
type taking struct {
	*Coordinator
	lead  Leadership
	life  context.Context // of the nodes' calls, and of the trace
	set   Settings
	tell  func(string, Record)
	rec   Record
	nodes []Member
	parts parts

	unnamed bool // its name is made from the time
}

// take goes from nothing to the decision. After an error nothing remains but the record.
func (t *taking) take(ctx context.Context) (err error) {
	select {
	case t.cutting <- struct{}{}:
		defer func() { <-t.cutting }()
	case <-ctx.Done():
		return fmt.Errorf("another snapshot of the cluster is being taken: %w", ctx.Err())
	}
	if err := t.checkName(ctx); err != nil {
		return err
	}
	if t.nodes, err = t.Coordinator.nodes(ctx, t.set.Nodes); err != nil {
		return err
	}
	for _, n := range t.nodes {
		t.rec.Nodes = append(t.rec.Nodes, NodePart{Node: n.Name, Address: n.Address})
	}
	if err := t.Records.put(ctx, t.lead, &t.rec, ""); err != nil {
		return err
	}
	t.tell("preparing", t.rec)
	if t.parts, err = openParts(t.life, ctx, t.nodes, t.Dial); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.parts.end()
		}
	}()
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if err := t.cut(ctx); err != nil {
		return err
	}
	return t.decide(ctx)
}

// step is a step of all parts, with a span.
func (t *taking) step(ctx context.Context, req *api.PartRequest) (events []*api.PartEvent, err error) {
	ctx, end := t.Trace(ctx, stepText(req.GetStep()))
	defer func() { end(err) }()
	return t.parts.step(ctx, req)
}

// checkName refuses a name that is in use. For one that is made from the time it finds another: the clock may have been put back.
func (t *taking) checkName(ctx context.Context) error {
	all, err := t.Records.List(ctx)
	if err != nil {
		return err
	}
	made := t.rec.Name
	for n := 2; taken(all, t.rec.Name); n++ {
		if !t.unnamed {
			return fmt.Errorf("%w: %q", ErrExists, t.rec.Name)
		}
		t.rec.Name = fmt.Sprintf("%s-%d", made, n)
	}
	return nil
}

func taken(all []Record, name string) bool {
	return slices.ContainsFunc(all, func(r Record) bool { return r.Name == name && r.State != StateFailed })
}

func (t *taking) prepare(ctx context.Context) error {
	events, err := t.step(ctx, &api.PartRequest{Step: api.PartRequest_STEP_PREPARE, Id: t.rec.ID, Name: t.rec.Name, Term: t.lead.Term})
	if err != nil {
		return err
	}
	for i, ev := range events {
		t.rec.Nodes[i].Metadata = ev.GetMetadata()
		if ev.GetClockOffset() != nil {
			d := ev.GetClockOffset().AsDuration()
			t.rec.Nodes[i].ClockOffset = &d
		}
	}
	if err := sameMetadata(t.rec.Nodes); err != nil {
		return err
	}
	return t.checkLength()
}

// maxRecord is the greatest length of a record without its volumes' parts. etcd takes requests of 1.5 MiB.
const maxRecord = 1 << 20

// checkLength refuses metadata that etcd wouldn't take in the record of the complete snapshot, where it is twice.
func (t *taking) checkLength() error {
	rec := t.rec
	if err := rec.describe(""); err != nil {
		return err
	}
	value, err := json.Marshal(&rec)
	if err == nil && len(value) > maxRecord {
		err = fmt.Errorf("the metadata of all nodes together is too long: %d bytes in the record of the snapshot, of at most %d; have its sources leave out what a restore doesn't need, or only one node read it", len(value), maxRecord)
	}
	return err
}

// sameMetadata fails if nodes don't agree on what the graph is; those that read none have no say. It may pass: one may have been asked before a change and the other after it.
func sameMetadata(nodes []NodePart) error {
	var first *NodePart
	for i := range nodes {
		n := &nodes[i]
		switch {
		case len(n.Metadata) == 0:
		case first == nil:
			first = n
		case !bytes.Equal(first.Metadata, n.Metadata):
			return &NodeError{n.Node, status.Errorf(codes.Aborted, "its metadata of the graph is another one than that of node %s: wait until the graph's change has come to all nodes, or have them read it from one place", first.Node)}
		}
	}
	return nil
}

// cut closes all gates, and ends the epochs when all are closed.
func (t *taking) cut(ctx context.Context) error {
	t.tell("holding", t.rec)
	if err := t.ready(ctx); err != nil {
		return err
	}
	defer t.Urgent(ctx, 2*t.set.Hold)()
	hctx, cancel := context.WithTimeout(ctx, 2*t.set.Hold)
	defer cancel()
	if _, err := t.step(hctx, &api.PartRequest{Step: api.PartRequest_STEP_HOLD, Bound: boundOf(t.set.Hold)}); err != nil {
		return err
	}
	events, err := t.step(hctx, &api.PartRequest{Step: api.PartRequest_STEP_CUT})
	if err != nil {
		return err
	}
	for i, ev := range events {
		t.rec.Nodes[i].Volumes = volumeParts(ev.GetVolumes())
		for _, v := range t.rec.Nodes[i].Volumes {
			t.rec.Hold = max(t.rec.Hold, v.Hold)
		}
	}
	return nil
}

// ready has all processes that writers are going to wait for run before others.
func (t *taking) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.set.Hold)
	defer cancel()
	_, err := t.step(ctx, &api.PartRequest{Step: api.PartRequest_STEP_READY, Bound: boundOf(2 * t.set.Hold)})
	return err
}

// decide makes the cut count. If it isn't known whether etcd has the decision, it is undone: without the volumes' parts the record becomes failed.
func (t *taking) decide(ctx context.Context) error {
	if _, err := t.step(ctx, &api.PartRequest{Step: api.PartRequest_STEP_CHECK}); err != nil {
		return err
	}
	rec := t.rec
	rec.State = StateCut
	if err := t.Records.put(ctx, t.lead, &rec, StatePreparing); err != nil {
		return err
	}
	t.rec = rec
	return nil
}

// failBound is for telling etcd of a failure, when the caller's time has run out.
const failBound = 2 * requestTimeout

// fail notes what went wrong: now if etcd answers, else when it does. If this node isn't the coordinator any more by then, the next one does.
func (t *taking) fail(why error) {
	was := t.rec.State
	t.rec.State, t.rec.Error, t.rec.Ended = StateFailed, why.Error(), time.Now().UTC()
	t.Log.WarnContext(t.life, "a snapshot of the cluster has failed", "id", t.rec.ID, "name", t.rec.Name, "err", why)
	if len(t.rec.Nodes) == 0 {
		return // it was refused before it had a record
	}
	t.Ended(t.rec)
	defer t.background(t.trimFailed)
	rec := t.rec.clone()
	ctx, cancel := context.WithTimeout(context.Background(), failBound)
	defer cancel()
	err := t.putFailed(ctx, &rec, was)
	if errors.Is(err, ErrEtcd) {
		t.background(func(ctx context.Context, _ Leadership) {
			if err := insist(ctx, func() error { return t.putFailed(ctx, &rec, was) }); err != nil {
				t.leave(err)
			}
		})
	} else if err != nil {
		t.leave(err)
	}
}

// putFailed writes the record of a failed snapshot.
func (t *taking) putFailed(ctx context.Context, rec *Record, was string) error {
	err := t.Records.put(ctx, t.lead, rec, was)
	if was == StatePreparing && errors.Is(err, ErrNotCoordinator) {
		err = t.Records.put(ctx, t.lead, rec, StateCut) // the answer to the decision was lost
	}
	return err
}

func (t *taking) leave(err error) {
	t.Log.InfoContext(t.life, "the record of the failed snapshot is left to the next coordinator", "id", t.rec.ID, "err", err)
}

// finish has all parts stored, and makes the snapshot complete. A node that can't be told, or whose call ends, is asked what has become of its part.
func (t *taking) finish(ctx context.Context) error {
	defer t.parts.end()
	errs := make([]error, len(t.parts))
	var all sync.WaitGroup
	for i, p := range t.parts {
		all.Go(func() {
			volumes, err := p.commit()
			if err == nil {
				t.rec.Nodes[i].end(volumeParts(volumes))
				return
			}
			t.Log.InfoContext(t.life, "the call of a node has ended; it is asked what has become of its part", "id", t.rec.ID, "node", p.node.Name, "err", err)
			errs[i] = t.ask(ctx, i)
		})
	}
	all.Wait()
	return t.end(ctx, errs)
}

// end makes the snapshot complete if all its parts are, else failed.
func (t *taking) end(ctx context.Context, errs []error) error {
	if ctx.Err() != nil {
		return ErrNotCoordinator // the next one ends it
	}
	for _, n := range t.rec.Nodes {
		for _, v := range n.Volumes {
			if v.State != "complete" {
				errs = append(errs, fmt.Errorf("node %s: volume %s: %s", n.Node, v.Volume, v.reason()))
			}
		}
	}
	if err := OneLine(errs...); err != nil {
		t.fail(err)
		return err
	}
	rec := t.rec
	rec.State, rec.Ended = StateComplete, time.Now().UTC()
	var parent string
	if err := insist(ctx, func() (err error) { parent, err = t.parent(ctx); return err }); err != nil {
		return err
	}
	if err := rec.describe(parent); err != nil {
		return err
	}
	if err := insist(ctx, func() error { return t.Records.put(ctx, t.lead, &rec, StateCut) }); err != nil {
		return err
	}
	t.rec = rec
	t.Log.InfoContext(t.life, "a snapshot of the cluster is complete", "id", rec.ID, "name", rec.Name, "hold", rec.Hold, "took", rec.Ended.Sub(rec.Created))
	t.Ended(rec)
	t.signOff(ctx)
	return nil
}

func (v *VolumePart) reason() string {
	switch {
	case v.Error != "":
		return v.Error
	case v.State == "":
		return "it has no snapshot"
	}
	return "its snapshot is " + v.State
}

// parent gives the id of the newest complete snapshot of the cluster.
func (t *taking) parent(ctx context.Context) (id string, err error) {
	all, err := t.Records.List(ctx)
	for _, r := range all {
		if r.State == StateComplete {
			id = r.ID
		}
	}
	return id, err
}
