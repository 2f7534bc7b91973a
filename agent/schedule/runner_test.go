package schedule

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clocked is a runner whose clock can be changed, and what it has done; its time begins at midnight.
type clocked struct {
	*Runner
	offset atomic.Int64
	takes  atomic.Int64 // how long a run takes
	mu     struct {
		sync.Mutex
		done []string
	}
}

// start runs it in a bubble until the test ends.
func start(t *testing.T, texts ...string) *clocked {
	t.Helper()
	c := new(clocked)
	c.Runner = New(func(ctx context.Context, due time.Time) {
		c.note(due.Format("15:04"))
		select {
		case <-ctx.Done():
			c.note("cancelled")
		case <-time.After(time.Duration(c.takes.Load())):
		}
	}, func(s Skipped) {
		c.note(fmt.Sprintf("skipped %s-%s %d %v", s.First.Format("15:04"), s.Last.Format("15:04"), s.Count, s.Busy))
	})
	c.now = func() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }
	if err := c.Set(texts...); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return c
}

func (c *clocked) note(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.done = append(c.mu.done, s)
}

// wait lets time pass, and says what was done meanwhile.
func (c *clocked) wait(t *testing.T, d time.Duration, want ...string) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.mu.done, want) {
		t.Errorf("in %v: %q, want %q", d, c.mu.done, want)
	}
	c.mu.done = nil
}

func (c *clocked) change(d time.Duration) { c.offset.Add(int64(d)) }

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "CRON_TZ=UTC 0 * * * *", "CRON_TZ=UTC 0,15 3 * * *", "")
		c.wait(t, time.Hour-time.Nanosecond)
		c.wait(t, time.Nanosecond, "01:00")
		if n := c.Next(); n.UTC().Format("15:04") != "02:00" {
			t.Errorf("next: %v", n)
		}
		c.wait(t, 3*time.Hour, "02:00", "03:00", "03:15", "04:00")
	})
}

func TestOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "CRON_TZ=UTC */10 * * * *")
		c.takes.Store(int64(25 * time.Minute))
		c.wait(t, 10*time.Minute, "00:10")
		c.wait(t, 10*time.Minute, "skipped 00:20-00:20 1 true") // said when it happens, not when the run ends
		c.takes.Store(int64(10*time.Minute - time.Second))
		c.wait(t, 20*time.Minute, "skipped 00:30-00:30 1 true", "00:40")
		c.wait(t, 20*time.Minute, "00:50", "01:00")
	})
}

func TestClockForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "CRON_TZ=UTC */30 * * * *")
		c.wait(t, 10*time.Minute)
		c.change(25 * time.Minute) // to 00:35
		c.wait(t, time.Minute, "00:30")
		c.change(5*time.Hour - 6*time.Minute) // to 05:30: what has passed is run once
		c.wait(t, time.Minute, "skipped 01:00-05:00 9 false", "05:30")
		c.wait(t, 30*time.Minute, "06:00")
	})
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "CRON_TZ=UTC 0 1 * * *")
		c.wait(t, time.Minute)
		c.change(2*time.Hour + time.Minute)
		c.wait(t, time.Minute, "skipped 01:00-01:00 1 false") // too late
		c.wait(t, 24*time.Hour, "01:00")
	})
	synctest.Test(t, func(t *testing.T) { // the clock was never set before
		c := start(t, "CRON_TZ=UTC * * * * *")
		c.wait(t, 30*time.Second)
		c.change(24 * 365 * time.Hour)
		c.wait(t, time.Minute, "skipped 00:01-00:00 1059 false", "00:01")
		c.wait(t, time.Minute, "00:02")
	})
}

func TestClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "CRON_TZ=UTC 0 * * * *")
		c.wait(t, 2*time.Hour, "01:00", "02:00")
		c.change(-90 * time.Minute) // to 00:30: neither is run again
		c.wait(t, 2*time.Hour)
		c.wait(t, 30*time.Minute, "03:00")
		c.change(-5 * time.Hour) // to 22:00: it was wrong
		c.wait(t, time.Hour+time.Minute, "23:00")
	})
}

func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.wait(t, 90*time.Minute)
		if !c.Next().IsZero() {
			t.Errorf("next: %v", c.Next())
		}
		if err := c.Set("CRON_TZ=UTC 0 * * * *"); err != nil {
			t.Fatal(err)
		}
		c.wait(t, time.Hour, "02:00") // not 01:00, which had passed
		if err := c.Set("CRON_TZ=UTC 0,45 * * * *", "soon"); err == nil || !strings.Contains(err.Error(), `"soon"`) {
			t.Errorf("%v", err)
		}
		c.wait(t, time.Hour, "03:00") // those before are in force
		c.change(40 * time.Minute)    // what is due isn't lost because the same is set again
		if err := c.Set("CRON_TZ=UTC 0 * * * *"); err != nil {
			t.Fatal(err)
		}
		c.wait(t, time.Minute, "04:00")
		if err := c.Set(); err != nil {
			t.Fatal(err)
		}
		c.wait(t, 24*time.Hour)
	})
}

func TestSetWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(10 * time.Second)
		c := start(t)
		c.wait(t, 5*time.Second)
		if err := c.Set("CRON_TZ=UTC * * * * *"); err != nil {
			t.Fatal(err)
		}
		c.wait(t, 45*time.Second, "00:01")
	})
}

// What the runtime adds to a time hides changes of the clock.
func TestClock(t *testing.T) {
	if s := New(nil, nil).clock().String(); strings.Contains(s, "m=") {
		t.Error(s)
	}
}

func TestEndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var running atomic.Bool
		r := New(func(ctx context.Context, _ time.Time) {
			running.Store(true)
			<-ctx.Done()
			time.Sleep(time.Minute)
			running.Store(false)
		}, func(Skipped) {})
		if err := r.Set("* * * * *"); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(90*time.Second, stop)
		begun := time.Now()
		r.Run(ctx)
		if running.Load() || time.Since(begun) != 150*time.Second {
			t.Errorf("it ended after %v, the call goes on: %v", time.Since(begun), running.Load())
		}
	})
}

func TestSkippedText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for want, s := range map[string]Skipped{
		"the run at 2026-01-02 03:00 UTC was skipped: the one before still ran":                                                  {at, at, 1, true},
		"2 runs from 2026-01-02 03:00 UTC to 2026-01-02 04:00 UTC were skipped: the machine slept, or its clock was put forward": {at, at.Add(time.Hour), 2, false},
	} {
		if got := s.String(); got != want {
			t.Errorf("%s", got)
		}
	}
}
