package liveness

import (
	"math"
	"time"
)

const (
	gapsKept  = 64
	gapsLeast = 8   // below that the history says nothing
	phi8      = 5.6 // standard deviations, beyond which the normal distribution has 1e-8
)

// history is when an agent gave signs of life.
type history struct {
	last  time.Time
	doubt bool // somebody has failed to reach it since
	gaps  [gapsKept]time.Duration
	n     int // gaps that were ever added
}

// sign notes a sign of life. Those within half an interval are one.
func (h *history) sign(at time.Time, c Config) {
	gap := at.Sub(h.last)
	switch {
	case h.last.IsZero():
		h.last, h.doubt = at, false
		return
	case gap < c.Interval/2 && !h.doubt, gap <= 0:
		return
	case !h.doubt: // nobody asked
		gap = min(gap, c.Interval)
	}
	h.gaps[h.n%gapsKept] = min(gap, c.MaxTimeout)
	h.n++
	h.last, h.doubt = at, false
}

// longest is the longest gap that is remembered.
func (h *history) longest() (d time.Duration) {
	for _, g := range h.gaps[:min(h.n, gapsKept)] {
		d = max(d, g)
	}
	return d
}

// allowed is how long a silence may last before it means something.
func (h *history) allowed(c Config) time.Duration {
	n := min(h.n, gapsKept)
	if n < gapsLeast {
		return c.Timeout
	}
	var sum, squares float64
	for _, g := range h.gaps[:n] {
		sum += g.Seconds()
		squares += g.Seconds() * g.Seconds()
	}
	mean := sum / float64(n)
	deviation := math.Sqrt(max(squares/float64(n)-mean*mean, 0))
	d := time.Duration((mean + phi8*deviation) * float64(time.Second))
	return min(max(d, c.Timeout), c.MaxTimeout)
}
