package liveness

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// ErrNotReached is what ProbeVia's error wraps if via was asked, and answered that it doesn't reach the peer.
var ErrNotReached = errors.New("the peer was not reached")

// Dialer calls other agents. Its methods return soon after their context has ended.
type Dialer interface {
	// Probe asks a peer whether it is there.
	Probe(ctx context.Context, peer string) error
	// ProbeVia has via probe a peer. nil: via reached it. An error that isn't ErrNotReached is via's own, and says nothing of the peer.
	ProbeVia(ctx context.Context, via, peer string) error
}

// firstRetry is the time between the first two attempts to reach a peer that doesn't answer.
const firstRetry = 500 * time.Millisecond

// lastRetry is the longest such time: with its jitter, and the calls of an attempt, no more than Timeout passes between two attempts, so what is known is never old.
func (c Config) lastRetry() time.Duration {
	return max((c.Timeout-3*c.CallTimeout)*3/4, firstRetry)
}

// Prober does the probes of one agent, and notes in its table what they find.
type Prober struct {
	table *Table
	dial  Dialer
	wg    sync.WaitGroup

	mu struct {
		sync.Mutex
		busy map[string]bool // peers that are being probed, or repeated
	}
}

// NewProber makes a prober. Nothing is probed before Run or Confirm.
func NewProber(t *Table, d Dialer) *Prober {
	p := &Prober{table: t, dial: d}
	p.mu.busy = make(map[string]bool)
	return p
}

// Run probes, round by round, until ctx ends. It returns when all probes have ended.
func (p *Prober) Run(ctx context.Context) {
	defer p.wg.Wait()
	cfg := p.table.cfg
	for round := rand.Uint64(); ; round++ {
		for _, peer := range p.table.due(round, time.Now()) {
			p.start(ctx, peer)
		}
		wait := cfg.Interval - cfg.Jitter + rand.N(2*cfg.Jitter+1)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// due gives whom to probe in a round: those whose turn it is, and those in doubt.
func (t *Table) due(round uint64, now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := t.namesLocked()
	others := t.companyLocked(now)
	due := Targets(names, t.here, round, t.cfg.Others)
	for _, name := range names {
		if name != t.here && t.caseLocked(t.mu.members[name], now, others).decide() != Alive {
			due = append(due, name)
		}
	}
	return due
}

// start probes a peer in the background, unless that goes on already.
func (p *Prober) start(ctx context.Context, peer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.busy[peer] {
		return
	}
	p.mu.busy[peer] = true
	p.wg.Go(func() {
		p.repeat(ctx, peer)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.mu.busy, peer)
	})
}

// repeat probes a peer until it answers, or is no member any more.
func (p *Prober) repeat(ctx context.Context, peer string) {
	wait := &backoff.ExponentialBackOff{InitialInterval: firstRetry, RandomizationFactor: 0.25, Multiplier: 2, MaxInterval: p.table.cfg.lastRetry()}
	wait.Reset()
	for p.table.has(peer) && !p.attempt(ctx, peer) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait.NextBackOff()):
		}
	}
}

func (t *Table) has(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.members[name] != nil
}

// attempt probes a peer once; if it doesn't answer, peers are asked. It tells whether nothing is left to do.
func (p *Prober) attempt(ctx context.Context, peer string) bool {
	start := time.Now()
	err := p.call(ctx, p.table.cfg.CallTimeout, func(ctx context.Context) error { return p.dial.Probe(ctx, peer) })
	if ctx.Err() != nil {
		return true // it wasn't given the time
	}
	now := time.Now()
	p.table.Observe(Probe{From: p.table.here, To: peer, At: now, Latency: now.Sub(start), Err: err})
	if err != nil {
		p.ask(ctx, peer)
	}
	return err == nil
}

func (p *Prober) call(ctx context.Context, bound time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return do(ctx)
}

// ask has some peers probe another. What they say is noted when all have, so that one who can't isn't heard before one who can.
func (p *Prober) ask(ctx context.Context, peer string) {
	var said []Probe
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, via := range p.table.witnesses(peer, time.Now()) {
		wg.Go(func() {
			start := time.Now()
			// The other's probe is bounded as ours is, and has its way back before it.
			err := p.call(ctx, 2*p.table.cfg.CallTimeout, func(ctx context.Context) error { return p.dial.ProbeVia(ctx, via, peer) })
			if err != nil && !errors.Is(err, ErrNotReached) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			said = append(said, Probe{From: via, To: peer, At: now, Latency: now.Sub(start), Err: err})
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	for _, s := range said {
		p.table.Observe(s)
	}
}

// witnesses gives those that are to be asked about a peer: others each time, as far as there are any.
func (t *Table) witnesses(peer string, now time.Time) (some []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.mu.members[peer]
	if m == nil {
		return nil
	}
	all := helpers(t.namesLocked(), t.here, peer, m.asked)
	m.asked += t.cfg.Asked
	for _, name := range all {
		if len(some) < t.cfg.Asked && t.mu.members[name].lives(t.here, now, t.cfg) {
			some = append(some, name)
		}
	}
	return some
}

// Confirm probes an agent now, has peers probe it if it doesn't answer, and judges it. It takes three call time-outs at most.
func (p *Prober) Confirm(ctx context.Context, peer string) Verdict {
	p.attempt(ctx, peer)
	return p.table.Judge(peer, time.Now())
}
