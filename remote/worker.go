package remote

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"graphvol/chunkstore/target"
)

// Bounds of the time between rounds that fail.
const (
	firstDelay = time.Second
	lastDelay  = 5 * time.Minute
)

// Phase is what a worker does.
type Phase string

// The phases of a worker.
const (
	PhaseIdle    Phase = "idle"    // the remote has everything
	PhaseCopying Phase = "copying" // a round runs
	PhaseWaiting Phase = "waiting" // the last round failed; the next one begins by itself
	PhaseRefused Phase = "refused" // the last round failed, and so will the next until somebody does something
)

// Progress is how a remote fares.
type Progress struct {
	Phase       Phase
	Done, Total int64     // bytes of packs in the running round
	Err         error     // of the last round
	Next        time.Time // when the next round begins; zero: when there is something to do
	Synced      time.Time // when the last round that succeeded has ended; zero: none since the worker began
	Snapshots   int       // that the remote had then
	Degraded    int       // objects that were not on all their targets then
}

// Worker does a remote's rounds in the background.
type Worker struct {
	remote *Remote
	kick   chan struct{} // room for one
	stop   context.CancelFunc
	ended  chan struct{} // closed when rounds have ended
	scrubs sync.WaitGroup

	mu struct {
		sync.Mutex
		progress Progress
		takeOver bool
		wanted   uint64        // rounds that were asked for
		begun    uint64        // wanted as it was when the running or last round began
		news     chan struct{} // closed and replaced when something of this changes
	}
}

// NewWorker begins to do rounds: one at once, and one after each Kick; and scrubs, as the remote's Config says.
func NewWorker(r *Remote) *Worker {
	w := &Worker{remote: r, kick: make(chan struct{}, 1), ended: make(chan struct{})}
	w.mu.news = make(chan struct{})
	w.mu.progress.Phase = PhaseCopying
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go w.work(ctx)
	if r.cfg.ScrubEvery > 0 {
		w.scrubs.Go(func() { w.scrub(ctx) })
	}
	return w
}

// Remote is the worker's remote.
func (w *Worker) Remote() *Remote { return w.remote }

// Close ends the running round and scrub, and the worker. What was put stays, and the next worker goes on with the scrub.
func (w *Worker) Close() {
	w.stop()
	<-w.ended
	w.scrubs.Wait()
}

// Kick says that there may be something to do. It doesn't wait.
func (w *Worker) Kick() {
	w.mu.Lock()
	w.mu.wanted++
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// TakeOver has the next round take the remote over, and asks for one.
func (w *Worker) TakeOver() {
	w.mu.Lock()
	w.mu.takeOver = true
	w.mu.Unlock()
	w.Kick()
}

// Progress tells how the remote fares.
func (w *Worker) Progress() Progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.progress
}

// Wait asks for a round, and waits for the end of one that begins after the call. Its error is that round's, or ctx's. tell, if set, is called whenever
// the progress has changed meanwhile.
func (w *Worker) Wait(ctx context.Context, tell func()) error {
	w.Kick()
	w.mu.Lock()
	ticket := w.mu.wanted
	w.mu.Unlock()
	for {
		w.mu.Lock()
		p, news, over := w.mu.progress, w.mu.news, w.mu.begun >= ticket && w.mu.progress.Phase != PhaseCopying
		w.mu.Unlock()
		if tell != nil {
			tell()
		}
		if over {
			return p.Err
		}
		select {
		case <-news:
		case <-w.ended:
			return context.Canceled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *Worker) work(ctx context.Context) {
	defer close(w.ended)
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = firstDelay, lastDelay
	for {
		done, err := w.round(ctx)
		var retry <-chan time.Time
		if err == nil && done.Degraded == 0 {
			delays.Reset()
		} else {
			delay := delays.NextBackOff()
			if lasting(err) {
				delay = lastDelay
			}
			retry = time.After(delay)
			w.update(func(p *Progress) { p.Next = time.Now().Add(delay) })
		}
		select {
		case <-w.kick:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// round does one round, and tells how it went.
func (w *Worker) round(ctx context.Context) (Done, error) {
	select {
	case <-w.kick: // this round is what it asks for
	default:
	}
	w.mu.Lock()
	w.mu.begun = w.mu.wanted
	o := Options{TakeOver: w.mu.takeOver, Progress: func(done, total int64) { w.update(func(p *Progress) { p.Done, p.Total = done, total }) }}
	w.mu.takeOver = false
	w.mu.Unlock()
	w.update(func(p *Progress) { p.Phase, p.Done, p.Total, p.Next = PhaseCopying, 0, 0, time.Time{} })
	began := time.Now()
	done, err := w.remote.Sync(ctx, o)
	log := w.remote.cfg.Log
	switch {
	case err == nil && done.Packs+int64(done.Removed+done.Repaired) > 0:
		log.Info("the copy is up to date", "packs", done.Packs, "bytes", done.Bytes, "removed", done.Removed, "snapshots", done.Snapshots,
			"repaired", done.Repaired, "degraded", done.Degraded, "took", time.Since(began))
	case err != nil && ctx.Err() == nil:
		log.Warn("the copy is not up to date", "err", err, "put_bytes", done.Bytes)
	}
	w.update(func(p *Progress) {
		p.Err = err
		switch {
		case err == nil:
			p.Phase, p.Synced, p.Snapshots, p.Degraded = PhaseIdle, time.Now(), done.Snapshots, done.Degraded
		case lasting(err):
			p.Phase = PhaseRefused
		default:
			p.Phase = PhaseWaiting
		}
	})
	return done, err
}

// lasting tells whether an error stays until somebody does something about it.
func lasting(err error) bool {
	for _, class := range []error{target.ErrDenied, ErrTaken, ErrForeign, ErrChanged, ErrNewerFormat} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

func (w *Worker) update(fn func(p *Progress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(&w.mu.progress)
	close(w.mu.news)
	w.mu.news = make(chan struct{})
}
