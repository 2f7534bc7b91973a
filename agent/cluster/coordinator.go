package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
	"graphvol/agent/traceid"
)

// Defaults of Settings.
const (
	DefaultTimeout       = 300 * time.Second
	DefaultHold          = time.Second
	DefaultMaxConcurrent = 2
)

// attempts is how often a snapshot is tried whose metadata changed meanwhile.
const attempts = 3

// Settings say how snapshots are taken. Zero values are the defaults.
type Settings struct {
	Nodes         []string      // that every snapshot needs; none: all that are there
	Timeout       time.Duration // from the beginning until the cut
	Hold          time.Duration // the bound of a hold
	MaxConcurrent int           // snapshots between their beginning and their end
}

// Dialer gives a client of a node. It doesn't wait for a connection.
type Dialer func(Member) (api.NodeClient, error)

// CoordinatorConfig is what a coordinator works with.
type CoordinatorConfig struct {
	Records  *Records
	Members  func(context.Context) ([]Member, error)
	Dial     Dialer
	Settings func() Settings // asked at the beginning of each snapshot
	// Why tells what is known of a node that isn't in the list; nil: nothing.
	Why func(ctx context.Context, node string) string
	// Gone tells whether a node was taken out of the cluster for good; nil: none was.
	Gone func(ctx context.Context, node string) bool
	// Agree fails if nodes can't be in one snapshot; nil: all can.
	Agree func([]Member) error
	// Trace begins a span of a trace, as agent/telemetry's Tracing.Start; nil: nothing is traced.
	Trace func(ctx context.Context, name string, attrs ...string) (context.Context, func(error))
	// Urgent has this process run before others until the function that it gives is called, or the bound has passed; nil: it doesn't.
	Urgent func(ctx context.Context, bound time.Duration) (end func())
	// Ended is told of snapshots that have become complete or failed; nil: nobody.
	Ended func(Record)
	Log   *slog.Logger
}

// Coordinator takes snapshots of the cluster while its node is elected.
type Coordinator struct {
	CoordinatorConfig
	cutting chan struct{} // holds a token while a snapshot is between preparing and cut

	mu struct {
		sync.Mutex
		lead    Leadership
		ctx     context.Context // ends with the leadership; nil: none
		running int             // snapshots that have not ended
		work    sync.WaitGroup
	}
}

// ErrBusy: as many snapshots as may be are on their way.
var ErrBusy = errors.New("too many snapshots of the cluster are still being stored")

// NewCoordinator makes one that isn't elected.
func NewCoordinator(cfg CoordinatorConfig) *Coordinator {
	if cfg.Trace == nil {
		cfg.Trace = func(ctx context.Context, _ string, _ ...string) (context.Context, func(error)) {
			return ctx, func(error) {}
		}
	}
	if cfg.Urgent == nil {
		cfg.Urgent = func(context.Context, time.Duration) func() { return func() {} }
	}
	if cfg.Ended == nil {
		cfg.Ended = func(Record) {}
	}
	return &Coordinator{CoordinatorConfig: cfg, cutting: make(chan struct{}, 1)}
}

// Lead is for Join: it finishes what the coordinator before has left, and takes snapshots until ctx ends.
func (c *Coordinator) Lead(ctx context.Context, l Leadership) {
	c.mu.Lock()
	c.mu.lead, c.mu.ctx = l, ctx
	c.mu.Unlock()
	c.recover(ctx, l)
	<-ctx.Done()
	c.mu.Lock()
	c.mu.ctx = nil
	c.mu.Unlock()
	c.mu.work.Wait() // ends with ctx
}

// begin takes a place among those that are running.
func (c *Coordinator) begin(maxConcurrent int) (context.Context, Leadership, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lead, l, err := c.leadershipLocked()
	if err != nil {
		return nil, l, err
	}
	if c.mu.running >= maxConcurrent {
		return nil, l, fmt.Errorf("%w: %d are; wait for them (graphvol cluster snapshots), or raise max-concurrent", ErrBusy, c.mu.running)
	}
	c.mu.running++
	c.mu.work.Add(1)
	return lead, l, nil
}

// leadership gives the proof that this node is the coordinator, and a context that ends with that.
func (c *Coordinator) leadership() (context.Context, Leadership, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leadershipLocked()
}

func (c *Coordinator) leadershipLocked() (context.Context, Leadership, error) {
	if c.mu.ctx == nil || c.mu.ctx.Err() != nil {
		return nil, Leadership{}, ErrNotCoordinator
	}
	return c.mu.ctx, c.mu.lead, nil
}

// Leads tells whether this node is the coordinator.
func (c *Coordinator) Leads() bool {
	_, _, err := c.leadership()
	return err == nil
}

// background does something beside, for as long as this node is the coordinator.
func (c *Coordinator) background(fn func(context.Context, Leadership)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx, l, err := c.leadershipLocked(); err == nil {
		c.mu.work.Go(func() { fn(ctx, l) })
	}
}

func (c *Coordinator) finished() {
	c.mu.Lock()
	c.mu.running--
	c.mu.Unlock()
	c.mu.work.Done()
}

func (s *Settings) setDefaults() {
	if s.Timeout <= 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Hold <= 0 {
		s.Hold = DefaultHold
	}
	if s.MaxConcurrent <= 0 {
		s.MaxConcurrent = DefaultMaxConcurrent
	}
}

// Request is what is asked for.
type Request struct {
	Name   string // empty: made from the time
	NoWait bool   // return after the cut
}

// Snapshot takes a snapshot over all nodes, and returns when it is complete. Until the cut it ends with ctx and leaves nothing; afterwards it goes on without the caller.
// tell, which may be nil, gets the record in each phase.
func (c *Coordinator) Snapshot(ctx context.Context, req Request, tell func(phase string, rec Record)) (Record, error) {
	if tell == nil {
		tell = func(string, Record) {}
	}
	pause := backoff.NewExponentialBackOff()
	for n := 1; ; n++ {
		rec, err := c.try(ctx, req, tell)
		var node *NodeError
		if n == attempts || !errors.As(err, &node) || status.Code(node.Err) != codes.Aborted {
			return rec, err
		}
		c.Log.InfoContext(ctx, "a snapshot of the cluster is tried again", "name", rec.Name, "err", err)
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
			return rec, err
		}
	}
}

func (c *Coordinator) try(ctx context.Context, req Request, tell func(string, Record)) (Record, error) {
	set := c.Settings()
	set.setDefaults()
	lead, l, err := c.begin(set.MaxConcurrent)
	if err != nil {
		return Record{}, err
	}
	t := &taking{Coordinator: c, lead: l, set: set, tell: tell, unnamed: req.Name == ""}
	t.rec = Record{ID: newID(), Name: req.Name, State: StatePreparing, Term: l.Term, Created: time.Now().UTC()}
	if t.unnamed {
		t.rec.Name = t.rec.Created.Format("20060102T150405.000Z")
	}
	life, end := c.Trace(traceid.Follow(lead, ctx), "snapshot of the cluster", "graphvol.snapshot.id", t.rec.ID, "graphvol.snapshot.name", t.rec.Name)
	t.life, t.rec.Trace = life, traceid.Parent(life)
	pctx, cancel := context.WithTimeout(life, set.Timeout)
	stop := context.AfterFunc(ctx, cancel)
	err = t.take(pctx)
	stop()
	cancel()
	if err != nil {
		t.fail(err)
		end(err)
		c.finished()
		return t.rec, err
	}
	cut := t.rec.clone()
	tell("cut", cut)
	done := make(chan error, 1)
	go func() {
		defer c.finished()
		err := t.finish(life)
		end(err)
		done <- err
	}()
	if req.NoWait {
		return cut, nil
	}
	select {
	case err := <-done:
		if err != nil && t.rec.State == StateCut {
			err = fmt.Errorf("the snapshot is cut, and the next coordinator ends it: see graphvol cluster snapshots for what becomes of it (%w)", err)
		}
		tell(t.rec.State, t.rec)
		return t.rec, err
	case <-ctx.Done():
		return cut, ctx.Err()
	}
}

func (c *Coordinator) why(ctx context.Context, name string) string {
	if c.Why == nil {
		return ""
	}
	return ", " + c.Why(ctx, name) + ","
}

// nodes chooses who takes part, by name.
func (c *Coordinator) nodes(ctx context.Context, wanted []string) ([]Member, error) {
	there, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range wanted {
		if !slices.ContainsFunc(there, func(m Member) bool { return m.Name == name }) {
			missing = append(missing, name+c.why(ctx, name))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no snapshot without all nodes: %s is not in the cluster; start its agent, or see why it is away (graphvol cluster status); docs/cluster.md replaces and removes machines that are lost", strings.Join(missing, ", "))
	}
	all := slices.DeleteFunc(there, func(m Member) bool {
		return len(m.Volumes) == 0 || len(wanted) > 0 && !slices.Contains(wanted, m.Name)
	})
	if c.Agree != nil {
		if err := c.Agree(all); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no node of the cluster has a volume: write some into the configuration")
	}
	return all, nil
}
