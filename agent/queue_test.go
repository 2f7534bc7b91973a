package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/index"
	"graphvol/snapshot"
)

// fakeSealer seals when it is told to.
type fakeSealer struct {
	step chan error // one for each seal
	busy func(ctx context.Context, progress func(snapshot.Progress)) error

	mu    sync.Mutex
	order []string
}

func (f *fakeSealer) Seal(ctx context.Context, snap index.Snapshot, src snapshot.Source, progress func(snapshot.Progress)) (index.Snapshot, error) {
	f.mu.Lock()
	f.order = append(f.order, snap.Name)
	f.mu.Unlock()
	var err error
	if f.busy != nil {
		err = f.busy(ctx, progress)
	} else {
		select {
		case err = <-f.step:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	src.Release(err == nil)
	if err != nil {
		return snap, err
	}
	snap.State = index.StateComplete
	return snap, nil
}

// fakeEnded is an ended epoch of nothing.
type fakeEnded struct {
	snapshot.Source
	released []bool
}

func (e *fakeEnded) SetID(string)        {}
func (e *fakeEnded) Epoch() uint64       { return 1 }
func (e *fakeEnded) Release(sealed bool) { e.released = append(e.released, sealed) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func begin(t *testing.T, q *sealQueue, name string, src *fakeEnded) *job {
	t.Helper()
	if err := q.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	j, err := q.put(t.Context(), index.Snapshot{Name: name, State: index.StatePending}, src, nil)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestQueueKeepsTheOrder(t *testing.T) {
	f := &fakeSealer{step: make(chan error)}
	q := newSealQueue(f, 3, time.Hour, func(context.Context) {}, quiet())
	var jobs []*job
	for _, name := range []string{"a", "b", "c"} {
		jobs = append(jobs, begin(t, q, name, &fakeEnded{}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := q.acquire(ctx); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a fourth slot: %v", err)
	}
	if n := len(q.pending()); n != 3 {
		t.Errorf("%d pending", n)
	}
	broken := errors.New("broken")
	f.step <- nil
	f.step <- broken
	f.step <- nil
	for i, want := range []error{nil, broken, nil} {
		if snap, err := jobs[i].result(); !errors.Is(err, want) || (err == nil) != (snap.State == index.StateComplete) {
			t.Errorf("%d: %v, %v", i, snap, err)
		}
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(f.order, want) {
		t.Errorf("order %v", f.order)
	}
	q.close(t.Context())
	if _, err := q.put(t.Context(), index.Snapshot{}, &fakeEnded{}, nil); !errors.Is(err, errUnmounted) {
		t.Errorf("put after close: %v", err)
	}
}

func TestQueueDropsAndGoesOn(t *testing.T) {
	f := &fakeSealer{step: make(chan error)}
	q := newSealQueue(f, 3, time.Hour, func(context.Context) {}, quiet())
	srcs := []*fakeEnded{{}, {}}
	a, b := begin(t, q, "a", srcs[0]), begin(t, q, "b", srcs[1])
	if names := q.drop(); len(names) != 2 || !slices.Contains(names, "a") || !slices.Contains(names, "b") {
		t.Errorf("dropped: %v", names)
	}
	for i, j := range []*job{a, b} {
		if _, err := j.result(); !errors.Is(err, errUnmounted) {
			t.Errorf("%d: %v", i, err)
		}
		if !slices.Equal(srcs[i].released, []bool{false}) {
			t.Errorf("%d: released %v", i, srcs[i].released)
		}
	}
	c := begin(t, q, "c", &fakeEnded{})
	f.step <- nil
	if _, err := c.result(); err != nil {
		t.Errorf("after a drop: %v", err)
	}
	begin(t, q, "d", &fakeEnded{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.close(ctx) // doesn't wait for d
	if n := len(q.pending()); n != 0 {
		t.Errorf("%d pending after close", n)
	}
}

// TestQueueDropsTooLate: what becomes complete in the same moment wasn't dropped.
func TestQueueDropsTooLate(t *testing.T) {
	f := &fakeSealer{busy: func(ctx context.Context, _ func(snapshot.Progress)) error { <-ctx.Done(); return nil }}
	q := newSealQueue(f, 3, time.Hour, func(context.Context) {}, quiet())
	j := begin(t, q, "a", &fakeEnded{})
	if names := q.drop(); len(names) > 0 {
		t.Errorf("dropped: %v", names)
	}
	if snap, err := j.result(); err != nil || snap.State != index.StateComplete {
		t.Errorf("%+v, %v", snap, err)
	}
	q.close(t.Context())
}

func TestQueueEndsWhatMakesNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSealer{busy: func(ctx context.Context, progress func(snapshot.Progress)) error {
			for i := range 5 {
				time.Sleep(50 * time.Second)
				progress(snapshot.Progress{Bytes: int64(i + 1)})
			}
			for { // hangs from here on, though it still reports
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(10 * time.Second):
					progress(snapshot.Progress{Bytes: 5})
				}
			}
		}}
		q := newSealQueue(f, 1, time.Minute, func(context.Context) {}, quiet())
		begun := time.Now()
		_, err := begin(t, q, "a", &fakeEnded{}).result()
		if !errors.Is(err, errStalled) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took != 310*time.Second {
			t.Errorf("ended after %v", took)
		}
		q.close(t.Context())
	})
}
