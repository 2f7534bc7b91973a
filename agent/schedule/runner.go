package schedule

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	maxLate  = time.Hour
	maxBack  = 3 * time.Hour
	wakeUp   = time.Minute // how long a change of the clock stays unnoticed
	dueLimit = 1000        // how many times that have passed are counted, for a clock that was put forward by years
)

// Skipped are times at which nothing was run.
type Skipped struct {
	First, Last time.Time
	Count       int
	Busy        bool // the run before went on; otherwise the times were noticed too late
}

func (s Skipped) String() string {
	why := "the machine slept, or its clock was put forward"
	if s.Busy {
		why = "the one before still ran"
	}
	const layout = "2006-01-02 15:04 MST"
	if s.Count == 1 {
		return fmt.Sprintf("the run at %s was skipped: %s", s.First.Format(layout), why)
	}
	return fmt.Sprintf("%d runs from %s to %s were skipped: %s", s.Count, s.First.Format(layout), s.Last.Format(layout), why)
}

// Runner calls a function at the times of its expressions. All methods may be called at the same time.
type Runner struct {
	run     func(ctx context.Context, due time.Time)
	skipped func(Skipped)
	now     func() time.Time
	changed chan struct{}

	mu struct {
		sync.Mutex
		texts       []string
		expressions []*expression
		last        time.Time // what was due until then is done with
	}
}

// New makes a runner without expressions. run is called in a goroutine of its own, never twice at once; skipped must return soon.
func New(run func(ctx context.Context, due time.Time), skipped func(Skipped)) *Runner {
	return &Runner{run: run, skipped: skipped, now: time.Now, changed: make(chan struct{}, 1)}
}

// Set exchanges the expressions; empty ones don't count. If one can't be right, those before stay. Times that have passed don't come back; the same expressions change nothing.
func (r *Runner) Set(texts ...string) error {
	texts = slices.DeleteFunc(slices.Clone(texts), func(t string) bool { return t == "" })
	var all []*expression
	for _, t := range texts {
		e, err := parse(t)
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(texts, r.mu.texts) {
		return nil
	}
	r.mu.texts, r.mu.expressions, r.mu.last = texts, all, r.clock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return nil
}

// Next is when the function is called next, or zero if never.
func (r *Runner) Next() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nextLocked(r.mu.last)
}

func (r *Runner) nextLocked(t time.Time) (next time.Time) {
	for _, e := range r.mu.expressions {
		if n := e.next(t); !n.IsZero() && (next.IsZero() || n.Before(next)) {
			next = n
		}
	}
	return next
}

// clock is the wall's clock alone: the runtime's other one, which Sub prefers, doesn't see its changes.
func (r *Runner) clock() time.Time { return r.now().Round(0) }

// Run calls the function when it is time, until ctx ends, and the call that goes on then has returned.
func (r *Runner) Run(ctx context.Context) {
	var running chan struct{} // closed when the call returns
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			if running != nil {
				<-running
			}
			return
		case <-running:
			running = nil
		case <-r.changed:
		case <-t.C:
		}
		due, wait := r.due(running != nil)
		if !due.IsZero() {
			running = r.start(ctx, due)
		}
		t.Reset(wait)
	}
}

func (r *Runner) start(ctx context.Context, due time.Time) chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx, due)
	}()
	return done
}

// due gives the time that is to be run now, or zero, and after how long to look again.
func (r *Runner) due(busy bool) (time.Time, time.Duration) {
	due, skipped, wait := r.pass(busy)
	if skipped.Count > 0 {
		r.skipped(skipped)
	}
	return due, wait
}

// pass is done with all times until now.
func (r *Runner) pass(busy bool) (due time.Time, skipped Skipped, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if now.Before(r.mu.last.Add(-maxBack)) { // the clock was wrong
		r.mu.last = now
	}
	var passed []time.Time
	n := r.nextLocked(r.mu.last)
	for ; !n.IsZero() && !n.After(now); n = r.nextLocked(n) {
		passed = append(passed, n)
		if early := now.Add(-maxLate); len(passed) == dueLimit && n.Before(early) {
			n = early
		}
	}
	if len(passed) > 0 {
		last := passed[len(passed)-1]
		r.mu.last = last
		if !busy && now.Sub(last) <= maxLate {
			due, passed = last, passed[:len(passed)-1]
		}
	}
	if len(passed) > 0 {
		skipped = Skipped{First: passed[0], Last: passed[len(passed)-1], Count: len(passed), Busy: busy}
	}
	wait = wakeUp
	if !n.IsZero() {
		wait = min(wait, n.Sub(now))
	}
	return due, skipped, wait
}
