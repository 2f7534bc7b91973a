package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
	"graphvol/agent/hook"
	"graphvol/agent/schedule"
	"graphvol/snapshot"
	"graphvol/snapshot/retain"
)

// mostNames is how many names are tried for a scheduled snapshot.
const mostNames = 100

// ofCluster is the key of the cluster's schedule; no volume's label is empty.
const ofCluster = ""

// schedules take snapshots when it is time: of single volumes on every node, of the cluster on the coordinator.
type schedules struct {
	*Node
	mu struct {
		sync.Mutex
		runners map[string]*schedule.Runner // by volume, or ofCluster
	}
}

func (n *Node) newSchedules() *schedules {
	s := &schedules{Node: n}
	s.mu.runners = make(map[string]*schedule.Runner)
	return s
}

// set takes over what a configuration has. Its expressions have been checked.
func (s *schedules) set(c *current) {
	wanted := map[string]string{ofCluster: c.file.Cluster.Schedule}
	for _, v := range c.volumes {
		wanted[v.label] = v.cfg.Schedule
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, r := range s.mu.runners {
		s.setLocked(key, r, wanted[key])
		delete(wanted, key)
	}
	for key, text := range wanted {
		if text == "" {
			continue
		}
		r := schedule.New(func(ctx context.Context, _ time.Time) { s.run(ctx, key) }, func(missed schedule.Skipped) {
			s.log.Warn("a scheduled snapshot was skipped", "of", scheduleName(key), "why", missed.String())
			s.metrics.Skipped(scheduleName(key), missed.Count, missed.Busy)
		})
		s.mu.runners[key] = r
		s.setLocked(key, r, text)
		s.beside(r.Run)
	}
}

// scheduleName is a schedule's name in the log and in metrics.
func scheduleName(key string) string {
	if key == ofCluster {
		return "cluster"
	}
	return key
}

func (s *schedules) setLocked(key string, r *schedule.Runner, text string) {
	if err := r.Set(text); err != nil {
		s.log.Error("a schedule stays what it was", "volume", key, "err", err)
	}
}

// run takes one snapshot, and deletes those that the policy doesn't keep any more.
func (s *schedules) run(ctx context.Context, key string) {
	if key == ofCluster && !s.coordinator.Leads() {
		return // the coordinator does it
	}
	what, run := "the cluster", s.runCluster
	if key != ofCluster {
		what, run = "volume "+key, func(ctx context.Context) error { return s.runVolume(ctx, key) }
	}
	ctx, end := s.tracing.Start(ctx, "scheduled snapshot of "+what)
	err := run(ctx)
	end(err)
	s.problem("schedule of "+what, err)
	if err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "a scheduled snapshot has failed", "of", what, "err", err)
	}
}

// runCluster takes a snapshot of the cluster.
func (s *schedules) runCluster(ctx context.Context) error {
	if _, err := s.coordinator.Snapshot(ctx, cluster.Request{}, nil); err != nil {
		return err
	}
	policy, some, err := policyOf(s.now.Load().file.Cluster.Keep)
	if err != nil || !some {
		return err
	}
	all, err := s.records.List(ctx)
	if err != nil {
		return err
	}
	var items []retain.Item
	for _, r := range all {
		if r.State == cluster.StateComplete {
			items = append(items, retain.Item{ID: r.ID, Created: r.Created.Local()})
		}
	}
	gone := forgotten(policy, items)
	if len(gone) > 0 {
		_, err = s.coordinator.Delete(ctx, gone)
	}
	return err
}

// runVolume takes a snapshot of one volume alone.
func (s *schedules) runVolume(ctx context.Context, label string) error {
	v := s.now.Load().find(label)
	if v == nil {
		return nil
	}
	if err := errors.Join(s.checkClock(), s.preflight(ctx)); err != nil {
		return err
	}
	return v.call(ctx, func(c *agent.Client) error {
		if err := s.takeNamed(ctx, v, c); err != nil {
			return err
		}
		return keepVolume(ctx, v, c)
	})
}

// takeNamed takes one with the name that one without gets, which hooks are told before there is one. If it turns out to be taken, they run again with the next.
func (s *schedules) takeNamed(ctx context.Context, v *volume, c *agent.Client) error {
	now := time.Now()
	for n := 1; ; n++ {
		err := s.snapshotVolume(ctx, v, c, snapshot.DefaultName(now, n))
		if n == mostNames || status.Code(err) != codes.AlreadyExists {
			return err
		}
	}
}

// snapshotVolume takes a snapshot with the hooks around its pause, and returns when it is stored.
func (s *schedules) snapshotVolume(ctx context.Context, v *volume, c *agent.Client, name string) error {
	h, err := s.preHooks(ctx, []*volume{v}, name)
	defer h.wait()
	defer h.startPost(s.Node, hook.Failed) // unless the post hooks have begun
	if err != nil {
		return err
	}
	stream, err := c.Snapshot(ctx, &api.SnapshotRequest{Name: name})
	for err == nil {
		var ev *api.SnapshotEvent
		if ev, err = stream.Recv(); err == nil && ev.GetStage() == api.SnapshotEvent_STAGE_TAKEN {
			h.startPost(s.Node, hook.Taken)
			s.metrics.Pause(v.label, ev.GetSnapshot().GetPause().AsDuration())
		} else if err == nil && ev.GetStage() == api.SnapshotEvent_STAGE_COMPLETE {
			s.sealed(&api.VolumePart{Volume: v.label, Snapshot: ev.GetSnapshot()})
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return v.said(err)
}

// keepVolume deletes the volume's own snapshots that its policy doesn't keep.
func keepVolume(ctx context.Context, v *volume, c *agent.Client) error {
	policy, some, err := policyOf(v.cfg.Keep)
	if err != nil || !some {
		return err
	}
	list, err := c.ListSnapshots(ctx, &api.ListSnapshotsRequest{})
	if err != nil {
		return v.said(err)
	}
	// Those of the cluster have a policy of their own, and would keep one of the volume's from counting.
	own := slices.DeleteFunc(list.GetSnapshots(), func(s *api.SnapshotInfo) bool { return slices.Contains(s.GetTags(), clusterTag) })
	if gone := forgotten(policy, agent.RetainItems(own)); len(gone) > 0 {
		if _, err := c.Delete(ctx, &api.DeleteRequest{Snapshots: gone}); err != nil {
			return v.said(err)
		}
	}
	return nil
}

func forgotten(policy retain.Policy, items []retain.Item) (gone []string) {
	for _, d := range policy.Apply(items) {
		if !d.Keep {
			gone = append(gone, d.ID)
		}
	}
	return gone
}

// policyOf is what a configuration keeps; false: it deletes nothing.
func policyOf(k config.Keep) (p retain.Policy, some bool, err error) {
	p = retain.Policy{Last: k.Last, Hourly: k.Hourly, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly, Yearly: k.Yearly, Tags: k.Tags}
	if k.Within != "" {
		if p.Within, err = retain.ParseSpan(k.Within); err != nil {
			return p, false, err
		}
	}
	if reflect.ValueOf(k).IsZero() {
		return p, false, nil
	}
	return p, true, p.Check()
}

// checkTimes refuses schedules and policies that can't be right.
func checkTimes(what, expression string, keep config.Keep) error {
	if expression != "" {
		if err := schedule.Check(expression); err != nil {
			return fmt.Errorf("%s: schedule: %w", what, err)
		}
	}
	if _, _, err := policyOf(keep); err != nil {
		return fmt.Errorf("%s: keep: %w", what, err)
	}
	return nil
}
