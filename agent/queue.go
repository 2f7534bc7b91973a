package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/agent/traceid"
	"graphvol/index"
	"graphvol/snapshot"
)

// Why a seal was ended from outside.
var (
	errStalled      = errors.New("storing it made no progress for too long; the disk of the backing or of the store hangs, or is too slow")
	errNotCommitted = errors.New("the snapshot over several volumes that it was part of was not decided on")
	errUnmounted    = errors.New("the volume was unmounted before it was stored")
)

// sealer is what the queue needs of a repository.
type sealer interface {
	Seal(ctx context.Context, snap index.Snapshot, src snapshot.Source, progress func(snapshot.Progress)) (index.Snapshot, error)
}

// sealQueue seals snapshots one after the other, in the order in which they were put in: that of their barriers, as each
// is the next one's parent. At most slots of them are unsealed at a time.
type sealQueue struct {
	sealer sealer
	log    *slog.Logger
	stall  time.Duration
	sealed func(context.Context) // called after each seal, however it went
	slots  chan struct{}         // one in it for each snapshot between acquire and the end of its seal
	jobs   chan *job             // as large as slots, so putting never blocks
	ended  chan struct{}         // closed when the worker has ended

	mu struct {
		sync.Mutex
		closed bool
		live   map[*job]struct{}
	}
}

// job is one snapshot on its way.
type job struct {
	src    ended
	ctx    context.Context // of the seal
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when snap and err are final

	approved <-chan struct{} // closed when it may be sealed; nil: at once

	mu struct {
		sync.Mutex
		snap    index.Snapshot
		err     error
		figures snapshot.Progress
		news    chan struct{} // closed and replaced when figures change
	}
}

func newSealQueue(s sealer, slots int, stall time.Duration, sealed func(context.Context), log *slog.Logger) *sealQueue {
	q := &sealQueue{
		sealer: s, log: log, stall: stall, sealed: sealed,
		slots: make(chan struct{}, slots), jobs: make(chan *job, slots), ended: make(chan struct{}),
	}
	q.mu.live = make(map[*job]struct{})
	go q.work()
	return q
}

// acquire takes a slot, waiting until one is free. It must be followed by put or release.
func (q *sealQueue) acquire(ctx context.Context) error {
	select {
	case q.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return refuse(codes.ResourceExhausted, fmt.Sprintf("%d snapshots are still being stored, so no further one was taken: wait for them (graphvol snapshots), or mount with a higher --max-concurrent", cap(q.slots)))
		}
		return ctx.Err()
	}
}

func (q *sealQueue) release() { <-q.slots }

// put hands over a snapshot that was begun. Only callers with a slot may. It is sealed when approved is closed, unless that is nil; those that
// come after it wait.
//
// The seal goes on when ctx has ended; its lines in the log belong to the same trace.
func (q *sealQueue) put(ctx context.Context, snap index.Snapshot, src ended, approved <-chan struct{}) (*job, error) {
	j := &job{src: src, done: make(chan struct{}), approved: approved}
	j.ctx, j.cancel = context.WithCancelCause(traceid.Follow(context.Background(), ctx))
	j.mu.snap = snap
	j.mu.news = make(chan struct{})
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return nil, errUnmounted
	}
	q.mu.live[j] = struct{}{}
	q.jobs <- j
	return j, nil
}

// pending tells the names of what is not sealed yet.
func (q *sealQueue) pending() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	names := make([]string, 0, len(q.mu.live))
	for j := range q.mu.live {
		names = append(names, j.name())
	}
	return names
}

// close takes no further jobs, finishes those that are there, and drops what is left of them when ctx ends.
func (q *sealQueue) close(ctx context.Context) {
	q.mu.Lock()
	if !q.mu.closed {
		q.mu.closed = true
		close(q.jobs)
	}
	q.mu.Unlock()
	select {
	case <-q.ended:
	case <-ctx.Done():
		q.cancel()
		<-q.ended
	}
}

// cancel ends everything that is being sealed or waits for it. The queue goes on with what comes after.
func (q *sealQueue) cancel() (ended []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for j := range q.mu.live {
		j.cancel(errUnmounted)
		ended = append(ended, j)
	}
	return ended
}

// dropBound is how long a seal may take to notice that it was ended.
const dropBound = 5 * time.Second

// drop is cancel, and tells the names of those that did not become complete in the same moment.
func (q *sealQueue) drop() (names []string) {
	ctx, stop := context.WithTimeout(context.Background(), dropBound)
	defer stop()
	for _, j := range q.cancel() {
		select {
		case <-j.done:
			if _, err := j.result(); err != nil {
				names = append(names, j.name())
			}
		case <-ctx.Done():
			names = append(names, j.name()) // what it waits for is worse off
		}
	}
	return names
}

func (q *sealQueue) work() {
	defer close(q.ended)
	for j := range q.jobs {
		q.seal(j)
	}
}

func (q *sealQueue) seal(j *job) {
	if j.approved != nil {
		select {
		case <-j.approved:
		case <-j.ctx.Done(): // Seal takes it from the catalogue
		}
	}
	watch := time.AfterFunc(q.stall, func() { j.cancel(errStalled) })
	var last snapshot.Progress
	snap, err := q.sealer.Seal(j.ctx, j.snapshot(), j.src, func(p snapshot.Progress) {
		if p != last {
			last = p
			watch.Reset(q.stall)
			j.report(p)
		}
	})
	watch.Stop()
	if err != nil {
		// Who ended it says more than that it was ended.
		if cause := context.Cause(j.ctx); cause != nil {
			err = cause
		}
		q.log.ErrorContext(j.ctx, "the snapshot failed", "id", j.snapshot().ID, "name", j.name(), "err", err)
	} else {
		q.log.InfoContext(j.ctx, "the snapshot is complete", "id", snap.ID, "name", snap.Name, "kind", snap.Kind, "seal", time.Duration(snap.SealNS),
			"pause", time.Duration(snap.PauseNS), "dirty_bytes", snap.DirtyBytes, "stored_bytes", snap.StoredBytes)
	}
	j.cancel(nil)
	q.mu.Lock()
	delete(q.mu.live, j)
	q.mu.Unlock()
	q.sealed(j.ctx)
	j.end(snap, err)
	q.release()
}

func (j *job) name() string { return j.snapshot().Name }

func (j *job) snapshot() index.Snapshot {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.snap
}

func (j *job) report(p snapshot.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.figures = p
	close(j.mu.news)
	j.mu.news = make(chan struct{})
}

func (j *job) end(snap index.Snapshot, err error) {
	j.mu.Lock()
	if err == nil {
		j.mu.snap = snap
	}
	j.mu.err = err
	j.mu.Unlock()
	close(j.done)
}

// figures tells how far the seal is, and a channel that is closed when there is more to tell.
func (j *job) figures() (snapshot.Progress, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.figures, j.mu.news
}

// result waits for the end.
func (j *job) result() (index.Snapshot, error) {
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.snap, j.mu.err
}
