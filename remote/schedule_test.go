package remote

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"graphvol/chunkstore/target"
)

// counted counts how often each object is opened.
type counted struct {
	target.Target
	mu     sync.Mutex
	opened map[string]int
}

func (c *counted) Open(ctx context.Context, name string) (target.Object, error) {
	c.mu.Lock()
	c.opened[name]++
	c.mu.Unlock()
	return c.Target.Open(ctx, name)
}

// total is how often objects of a kind were opened since the last call.
func (c *counted) total() (packs, heads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range c.opened {
		if rowed(name) {
			packs += n
		} else {
			heads += n
		}
	}
	c.opened = map[string]int{}
	return packs, heads
}

const day = 24 * time.Hour

// TestScrubSchedule: a worker scrubs when it is due and not before, across restarts, and what it finds is put again.
func TestScrubSchedule(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	c := &counted{Target: copied, opened: map[string]int{}}
	cfg := f.config(c)
	cfg.ScrubEvery = 30 * day
	rows, err := f.dir.List(t.Context(), "")
	f.must(err)
	synctest.Test(t, func(t *testing.T) {
		for i, step := range []struct {
			days  int
			scrub bool
		}{{29, false}, {2, true}, {28, false}, {3, true}} {
			w := NewWorker(New(cfg))
			synctest.Wait()
			c.total()
			time.Sleep(time.Duration(step.days) * day)
			synctest.Wait()
			want := 0
			if step.scrub {
				want = len(rows)
			}
			if n, _ := c.total(); n != want {
				t.Errorf("step %d: %d packs and manifests were read, want %d", i, n, want)
			}
			list, err := List(f.db)
			if err != nil || list[0].Scrubbed.IsZero() != (i == 0) || list[0].Problems != 0 {
				t.Errorf("step %d: %+v, %v", i, list, err)
			}
			w.Close()
		}
		if err := copied.Remove(t.Context(), rows[0].Name, rows[len(rows)-1].Name); err != nil {
			t.Fatal(err)
		}
		w := NewWorker(New(cfg))
		defer w.Close()
		time.Sleep(31 * day)
		synctest.Wait()
		if list, err := List(f.db); err != nil || list[0].Problems != 2 {
			t.Errorf("%+v, %v; two objects were removed", list, err)
		}
	})
	f.same(copied)
}

// TestScrubResumes: a scrub that was interrupted goes on where it was, and reads nothing twice but what it did in its last moments.
func TestScrubResumes(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	for range 4 {
		f.snapshot()
	}
	c := &counted{Target: copied, opened: map[string]int{}}
	cfg := f.config(c)
	cfg.ScrubEvery, cfg.ScrubLimit = 30*day, 1 // a byte a second
	rows, err := f.dir.List(t.Context(), "")
	f.must(err)
	synctest.Test(t, func(t *testing.T) {
		w := NewWorker(New(cfg))
		time.Sleep(30*day + time.Hour)
		synctest.Wait()
		c.total()
		restarts, opened := 0, 0
		for ; restarts < 100; restarts++ {
			time.Sleep(2 * day)
			synctest.Wait()
			n, _ := c.total()
			opened += n
			if list, err := List(f.db); err != nil {
				t.Fatal(err)
			} else if !list[0].Scrubbed.IsZero() {
				break
			}
			w.Close()
			w = NewWorker(New(cfg))
			synctest.Wait()
		}
		w.Close()
		if restarts < 2 || opened < len(rows)-2 || opened > len(rows)+2*restarts {
			t.Errorf("%d of %d objects were opened in %d restarts", opened, len(rows), restarts)
		}
	})
}

// TestScrubCloses: a worker whose scrub waits for somebody else's ends all the same.
func TestScrubCloses(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	cfg := f.config(copied)
	cfg.ScrubEvery, cfg.ScrubLimit = 30*day, 10
	synctest.Test(t, func(t *testing.T) {
		w := NewWorker(New(cfg))
		time.Sleep(30*day + time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := w.Remote().Scrub(ctx, ScrubOptions{Limit: 1})
			ended <- err
		}()
		time.Sleep(3 * time.Hour) // now it is that one's turn
		w.Close()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := w.Remote().turn(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestScrubMakesRoom: rounds don't wait for a scrub, nor does a scrub that somebody asks for; and the one of the worker ends when that has read everything.
func TestScrubMakesRoom(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	cfg := f.config(copied)
	cfg.ScrubEvery, cfg.ScrubLimit = 30*day, 10
	synctest.Test(t, func(t *testing.T) {
		w := NewWorker(New(cfg))
		defer w.Close()
		time.Sleep(30*day + time.Hour)
		synctest.Wait()
		if st, err := readState(f.db, cfg.Name); err != nil || st.Scrub.Began.IsZero() {
			t.Fatalf("no scrub runs: %+v, %v", st.Scrub, err)
		}
		began := time.Now()
		if err := w.Wait(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the round waited for %s", took)
		}
		if res, err := w.Remote().Scrub(t.Context(), ScrubOptions{}); err != nil || res.Problems() > 0 || res.Objects < 5 {
			t.Errorf("%+v, %v", res, err)
		}
		time.Sleep(4 * time.Hour) // it would take seven
		synctest.Wait()
		if st, err := readState(f.db, cfg.Name); err != nil || st.Scrub.At != "" || st.Scrub.Done.IsZero() {
			t.Errorf("the worker's scrub goes on: %+v, %v", st.Scrub, err)
		}
	})
}
