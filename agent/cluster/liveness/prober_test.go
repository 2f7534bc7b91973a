package liveness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// calls is a dialer that reaches nobody, and remembers who was asked.
type calls struct {
	via   error // what those answer who are asked
	asked []string
	at    []time.Time
}

func (c *calls) Probe(context.Context, string) error {
	c.at = append(c.at, time.Now())
	return errAway
}

func (c *calls) ProbeVia(_ context.Context, via, _ string) error {
	c.asked = append(c.asked, via)
	return c.via
}

// TestAsked: others are asked each time, of those that live; one that doesn't answer has said nothing of the peer.
func TestAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := NewTable("a", Config{Asked: 1})
		tab.SetMembers([]string{"b", "c", "d", "e", "f"})
		for _, name := range []string{"c", "d", "e"} {
			tab.SetLease(name, LeaseHeld, time.Now())
		}
		c := &calls{via: fmt.Errorf("c: %w", ErrNotReached)}
		p := NewProber(tab, c)
		for range 12 {
			time.Sleep(time.Millisecond)
			p.Confirm(t.Context(), "b")
		}
		slices.Sort(c.asked)
		if got := slices.Compact(c.asked); !slices.Equal(got, []string{"c", "d", "e"}) {
			t.Errorf("asked were %v", got)
		}
		if v := p.Confirm(t.Context(), "b"); !slices.ContainsFunc(v.Evidence, func(s string) bool { return s == "not reached by c, d, e either" }) {
			t.Errorf("%+v", v)
		}
		tab.SetMembers([]string{"c"})
		tab.SetMembers([]string{"b", "c"})
		c.via = errors.New("c doesn't answer")
		time.Sleep(time.Second)
		if v := p.Confirm(t.Context(), "b"); len(v.Evidence) != 2 {
			t.Errorf("c was not reached, and yet: %+v", v)
		}
	})
}

// TestRetries: the time between attempts doubles, with a jitter, up to its bound.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := NewTable("a", Config{})
		tab.SetMembers([]string{"b"})
		c := &calls{}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		NewProber(tab, c).Run(ctx)
		even := 0
		for i := range len(c.at) - 1 {
			want := min(firstRetry<<i, 6750*time.Millisecond)
			got := c.at[i+1].Sub(c.at[i])
			if got < want*3/4 || got > want*5/4+1 {
				t.Errorf("attempt %d came after %s, want about %s", i+1, got, want)
			}
			if got == want {
				even++
			}
		}
		if len(c.at) < 12 || even > 2 {
			t.Errorf("%d attempts in two minutes, %d without jitter", len(c.at), even)
		}
	})
}
