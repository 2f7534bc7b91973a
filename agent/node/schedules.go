package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/hook"
	"graphvol/agent/schedule"
	"graphvol/snapshot"
)

// mostNames is how many names are tried for a scheduled snapshot.
const mostNames = 100

// schedules do what is due: snapshots of single volumes on every node, of the cluster on the coordinator, and prunes.
type schedules struct {
	*Node
	mu struct {
		sync.Mutex
		runners map[job]*schedule.Runner
	}
}

// job is what a schedule does.
type job struct {
	volume string // its label; empty: the whole cluster
	prune  bool   // instead of a snapshot
}

// String is the job's name in the log and in metrics. A label has no blank.
func (j job) String() string {
	switch {
	case j.volume == "":
		return "cluster"
	case j.prune:
		return "prune " + j.volume
	}
	return j.volume
}

// jobs gives the times of all that a configuration has done; an empty text: never.
func (c *current) jobs() map[job]string {
	all := map[job]string{{}: c.file.Cluster.Schedule}
	for _, v := range c.volumes {
		all[job{volume: v.label}] = v.cfg.Schedule
		all[job{volume: v.label, prune: true}] = pruneTimes(c, v)
	}
	return all
}

func (n *Node) newSchedules() *schedules {
	s := &schedules{Node: n}
	s.mu.runners = make(map[job]*schedule.Runner)
	return s
}

// set takes over what a configuration has. Its expressions have been checked.
func (s *schedules) set(c *current) {
	wanted := c.jobs()
	s.mu.Lock()
	defer s.mu.Unlock()
	for j, r := range s.mu.runners {
		s.setLocked(j, r, wanted[j])
		delete(wanted, j)
	}
	for j, text := range wanted {
		if text == "" {
			continue
		}
		r := schedule.New(func(ctx context.Context, _ time.Time) { s.run(ctx, j) }, func(missed schedule.Skipped) {
			s.log.Warn("what was scheduled was skipped", "of", j.String(), "why", missed.String())
			s.metrics.Skipped(j.String(), missed.Count, missed.Busy)
		})
		s.mu.runners[j] = r
		s.setLocked(j, r, text)
		s.beside(r.Run)
	}
}

func (s *schedules) setLocked(j job, r *schedule.Runner, text string) {
	if err := r.Set(text); err != nil {
		s.log.Error("a schedule stays what it was", "of", j.String(), "err", err)
	}
}

// run does one job.
func (s *schedules) run(ctx context.Context, j job) {
	if j.volume == "" && !s.coordinator.Leads() {
		return // the coordinator does it
	}
	what, do := "snapshot of the cluster", s.runCluster
	switch {
	case j.prune:
		what, do = "prune of volume "+j.volume, func(ctx context.Context) error { return s.pruneVolume(ctx, j.volume) }
	case j.volume != "":
		what, do = "snapshot of volume "+j.volume, func(ctx context.Context) error { return s.runVolume(ctx, j.volume) }
	}
	ctx, end := s.tracing.Start(ctx, "scheduled "+what)
	err := do(ctx)
	end(err)
	s.problem("scheduled "+what, err)
	if err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "what was scheduled has failed", "of", j.String(), "err", err)
	}
}

// runCluster takes a snapshot of the cluster.
func (s *schedules) runCluster(ctx context.Context) error {
	if _, err := s.coordinator.Snapshot(ctx, cluster.Request{}, nil); err != nil {
		return err
	}
	return s.keepCluster(ctx)
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
	if err != nil {
		return v.said(err)
	}
	return v.said(api.Each(stream, func(ev *api.SnapshotEvent) error {
		switch ev.GetStage() {
		case api.SnapshotEvent_STAGE_TAKEN:
			h.startPost(s.Node, hook.Taken)
			s.metrics.Pause(v.label, ev.GetSnapshot().GetPause().AsDuration())
		case api.SnapshotEvent_STAGE_COMPLETE:
			s.sealed(&api.VolumePart{Volume: v.label, Snapshot: ev.GetSnapshot()})
		}
		return nil
	}))
}
