package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"graphvol/agent/api"
	"graphvol/agent/traceid"
)

// ErrNotFound: there is no such snapshot of the cluster.
var ErrNotFound = errors.New("there is no such snapshot of the cluster")

// ErrOpen: it isn't decided yet what becomes of the snapshot.
var ErrOpen = errors.New("it is still being taken")

const mostDropPause = time.Minute

// Resolve finds the record that a name, an id, a unique prefix of one or "latest" stands for. Names go before prefixes, complete ones before others.
func Resolve(all []Record, ref string) (*Record, error) {
	var found []*Record
	for i := range all {
		r := &all[i]
		switch {
		case r.ID == ref:
			return r, nil
		case ref == "latest" && r.State == StateComplete:
			found = []*Record{r}
		case r.Name == ref && r.State == StateComplete:
			return r, nil
		case ref != "" && (strings.HasPrefix(r.Name, ref) || strings.HasPrefix(r.ID, ref)):
			found = append(found, r)
		}
	}
	named := slices.DeleteFunc(slices.Clone(found), func(r *Record) bool { return r.Name != ref })
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("%w: %q (graphvol cluster snapshots lists them)", ErrNotFound, ref)
	case len(named) > 0:
		return named[len(named)-1], nil // of several tries the last
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %q is the beginning of %d of them: write more of it", ErrNotFound, ref, len(found))
	}
	return found[0], nil
}

// Delete deletes snapshots: all or none of those named are known and final. Each is deleted on all its nodes; one whose nodes can't all be reached stays "deleting", which the error says,
// and is tried again until they can.
func (c *Coordinator) Delete(ctx context.Context, refs []string) ([]Record, error) {
	all, err := c.Records.List(ctx)
	if err != nil {
		return nil, err
	}
	var doomed []Record
	for _, ref := range refs {
		rec, err := Resolve(all, ref)
		if err == nil && rec.Open() {
			err = fmt.Errorf("%s can't be deleted: %w; wait until it is complete", rec.Name, ErrOpen)
		}
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(doomed, func(r Record) bool { return r.ID == rec.ID }) {
			doomed = append(doomed, *rec)
		}
	}
	var errs []error
	for i := range doomed {
		errs = append(errs, c.delete(ctx, &doomed[i]))
	}
	return doomed, OneLine(errs...)
}

// delete has one snapshot deleted, now or later.
func (c *Coordinator) delete(ctx context.Context, rec *Record) error {
	lead, l, err := c.leadership()
	if err != nil {
		return err
	}
	if was := rec.State; was != StateDeleting {
		rec.State = StateDeleting
		if err := c.Records.put(ctx, l, rec, was); err != nil {
			return err
		}
	}
	err = c.drop(ctx, l, rec)
	if err == nil || lead.Err() != nil {
		return err
	}
	c.background(func(life context.Context, l Leadership) { c.dropLater(traceid.Follow(life, ctx), l, rec) })
	return fmt.Errorf("%s is deleted where it can be, and on the other nodes when they are there: %w", rec.Name, err)
}

// dropLater tries again until it is done, or this node isn't the coordinator any more.
func (c *Coordinator) dropLater(ctx context.Context, l Leadership, rec *Record) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = time.Second, mostDropPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
		if err := c.drop(ctx, l, rec); err == nil || errors.Is(err, ErrNotCoordinator) {
			return
		}
	}
}

// drop deletes the parts on all nodes, and then the record.
func (c *Coordinator) drop(ctx context.Context, l Leadership, rec *Record) error {
	errs := make([]error, len(rec.Nodes))
	var all sync.WaitGroup
	for i, n := range rec.Nodes {
		if len(n.Volumes) == 0 {
			continue // it failed before the node had a part
		}
		all.Go(func() {
			client, err := c.client(ctx, n.Node)
			if err != nil && c.Gone != nil && c.Gone(ctx, n.Node) {
				return // and its part with it: nobody waits for that
			}
			if err != nil {
				errs[i] = err
				return
			}
			cctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			if _, err := client.Drop(cctx, &api.DropRequest{Id: rec.ID, Volumes: askedFor(n.Volumes)}, grpc.WaitForReady(true)); err != nil {
				errs[i] = &NodeError{n.Node, err}
			}
		})
	}
	all.Wait()
	if err := OneLine(errs...); err != nil {
		return err
	}
	return c.Records.remove(ctx, l, rec.ID)
}

// askedFor names parts by what is needed to find them.
func askedFor(volumes []VolumePart) (out []*api.VolumePart) {
	for _, v := range volumes {
		out = append(out, &api.VolumePart{Volume: v.Volume, Snapshot: &api.SnapshotInfo{Id: v.Snapshot}})
	}
	return out
}

// remove removes a record, if the writer is the coordinator still.
func (r *Records) remove(ctx context.Context, l Leadership, id string) error {
	res, err := bounded(ctx, r.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return r.etcd.Txn(ctx).If(l.holds()).Then(clientv3.OpDelete(r.keys.snapshot(id))).Commit()
	})
	if err == nil && !res.Succeeded {
		err = ErrNotCoordinator
	}
	return err
}

// keptFailed is how many failed snapshots are listed. They say why, which is of use for a while; a schedule that fails each time must not fill etcd.
const keptFailed = 100

// trimFailed deletes the oldest failed ones.
func (c *Coordinator) trimFailed(ctx context.Context, _ Leadership) {
	all, err := c.Records.List(ctx)
	if err != nil {
		return // the next one that fails trims
	}
	failed := slices.DeleteFunc(all, func(r Record) bool { return r.State != StateFailed })
	for i := range max(len(failed)-keptFailed, 0) {
		if err := c.delete(ctx, &failed[i]); err != nil {
			c.Log.InfoContext(ctx, "an old failed snapshot is still listed", "id", failed[i].ID, "name", failed[i].Name, "err", err)
		}
	}
}
