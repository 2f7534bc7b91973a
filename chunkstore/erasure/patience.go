package erasure

import "time"

// patience is a timer that counts ticks: a process that stood still itself for a while, as on a suspended machine, must not take all others for hanging.
type patience struct {
	*time.Ticker
	left int
}

const patienceTicks = 10

func newPatience(d time.Duration) *patience {
	p := &patience{Ticker: time.NewTicker(max(time.Millisecond, d/patienceTicks))}
	p.renew()
	return p
}

func (p *patience) renew() { p.left = patienceTicks + 1 }

// over counts a tick and says whether it was the last.
func (p *patience) over() bool {
	p.left--
	return p.left <= 0
}
