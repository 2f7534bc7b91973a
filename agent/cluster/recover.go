package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"graphvol/agent/api"
	"graphvol/agent/traceid"
)

// callTimeout bounds one short call to a node.
const callTimeout = 5 * time.Second

var errInterrupted = errors.New("its coordinator has died or lost its connection before it was decided")

// recover ends what the coordinator before has left open.
func (c *Coordinator) recover(ctx context.Context, l Leadership) {
	open, err := backoff.Retry(ctx, func() ([]Record, error) { return c.Records.List(ctx) }, backoff.WithMaxElapsedTime(0))
	if err != nil {
		return // it isn't the coordinator any more
	}
	for _, rec := range open {
		if rec.State == StateDeleting {
			c.background(func(ctx context.Context, l Leadership) { c.dropLater(ctx, l, &rec) })
		}
		if !rec.Open() || rec.Term == l.Term {
			continue
		}
		t := &taking{Coordinator: c, lead: l, life: rec.Traced(ctx), set: c.Settings(), tell: func(string, Record) {}, rec: rec}
		t.set.setDefaults()
		if rec.State == StatePreparing {
			t.fail(errInterrupted)
			continue
		}
		c.background(func(ctx context.Context, _ Leadership) { t.resume(traceid.Follow(ctx, t.life)) })
	}
}

// resume ends a snapshot that was cut by another coordinator.
func (t *taking) resume(ctx context.Context) {
	t.Log.InfoContext(t.life, "finishing a snapshot of another coordinator", "id", t.rec.ID, "name", t.rec.Name)
	var errs []error
	for i := range t.rec.Nodes {
		if err := t.ask(ctx, i); err != nil {
			errs = append(errs, err)
		}
	}
	if err := t.end(ctx, errs); err != nil {
		t.Log.WarnContext(t.life, "a snapshot of another coordinator could not be finished", "id", t.rec.ID, "name", t.rec.Name, "err", err)
	}
}

// ask asks a node, again and again, what has become of its part, until that is final, or the node has been silent for the time-out of a snapshot.
func (t *taking) ask(ctx context.Context, i int) error {
	part := &t.rec.Nodes[i]
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	for answered := time.Now(); ; {
		volumes, err := t.outcome(ctx, part)
		switch {
		case err == nil && final(volumes):
			part.end(volumes)
			return nil
		case err == nil:
			answered = time.Now()
		case time.Since(answered) > t.set.Timeout:
			return fmt.Errorf("node %s has not answered for %v: %w", part.Node, t.set.Timeout, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause.NextBackOff()):
		}
	}
}

func final(volumes []VolumePart) bool {
	for _, v := range volumes {
		if v.State == "pending" {
			return false
		}
	}
	return true
}

func (t *taking) outcome(ctx context.Context, part *NodePart) ([]VolumePart, error) {
	client, err := t.client(ctx, part.Node)
	if err != nil {
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := client.Outcome(cctx, &api.OutcomeRequest{Volumes: askedFor(part.Volumes)}, grpc.WaitForReady(true))
	if err != nil {
		return nil, &NodeError{part.Node, err}
	}
	return volumeParts(res.GetVolumes()), nil
}

// client gives a client of a node that is there.
func (c *Coordinator) client(ctx context.Context, name string) (api.NodeClient, error) {
	all, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.Name == name {
			return c.Dial(m)
		}
	}
	return nil, fmt.Errorf("node %s is not in the cluster", name)
}

// signOff has all nodes store the manifest. Who can't now does when it next looks at the records.
func (t *taking) signOff(ctx context.Context) {
	var g errgroup.Group
	for _, n := range t.rec.Nodes {
		g.Go(func() error {
			client, err := t.client(ctx, n.Node)
			if err == nil {
				cctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				_, err = client.SignOff(cctx, &api.SignOffRequest{Id: t.rec.ID, Manifest: t.rec.Manifest}, grpc.WaitForReady(true))
			}
			if err != nil {
				t.Log.InfoContext(t.life, "a node stores the cluster's manifest later", "id", t.rec.ID, "node", n.Node, "err", err)
			}
			return nil
		})
	}
	g.Wait()
}
