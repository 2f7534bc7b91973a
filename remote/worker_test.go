package remote

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"graphvol/chunkstore/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWorker(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	w := NewWorker(New(f.config(copied)))
	defer w.Close()
	for range 3 {
		if err := w.Wait(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		f.same(copied)
		if p := w.Progress(); p.Phase != PhaseIdle || p.Snapshots != len(f.want) || p.Synced.IsZero() || p.Done != p.Total {
			t.Errorf("%+v", p)
		}
		f.snapshot()
	}
}

// outage is a target that can't be reached for a while.
type outage struct {
	target.Target
	err  atomic.Pointer[error]
	when []time.Time // of calls meanwhile
}

func (o *outage) List(ctx context.Context, prefix string) ([]target.Info, error) {
	if err := o.err.Load(); err != nil {
		o.when = append(o.when, time.Now())
		return nil, *err
	}
	return o.Target.List(ctx, prefix)
}

// TestWorkerRetries: a worker tries again, less and less often, and a lasting error seldom.
func TestWorkerRetries(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	for class, want := range map[error]struct {
		phase Phase
		least int
		most  int
	}{
		target.ErrUnavailable: {PhaseWaiting, 10, 30},
		target.ErrDenied:      {PhaseRefused, 5, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := &outage{Target: copied}
			o.err.Store(&class)
			w := NewWorker(New(f.config(o)))
			defer w.Close()
			time.Sleep(30 * time.Minute)
			synctest.Wait()
			if p := w.Progress(); p.Phase != want.phase || !errors.Is(p.Err, class) || p.Next.IsZero() {
				t.Errorf("%v: %+v", class, p)
			}
			if n := len(o.when); n < want.least || n > want.most {
				t.Errorf("%v: %d tries in half an hour, want %d to %d", class, n, want.least, want.most)
			}
			o.err.Store(nil)
			if err := w.Wait(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}
