package clock

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Defaults of Config.
const (
	DefaultLimit = 500 * time.Millisecond
	DefaultEvery = 64 * time.Second
)

const (
	measureBound = samples * exchangeBound // of one measurement
	lookEvery    = time.Second             // at whether the clock was set
	atOnce       = 64                      // sources that are asked at the same time
	tries        = 3                       // of a measurement during which the clock was set
)

// Config is what a monitor works with.
type Config struct {
	Peers   func() []Peer    // those that can be asked, at each measurement anew; nil: none
	Servers func() []string  // NTP servers, HOST or HOST:PORT; nil: none
	Limit   time.Duration    // above it backups pause; 0: DefaultLimit
	Every   time.Duration    // the longest time between two measurements; 0: DefaultEvery
	Log     *slog.Logger     // pauses and their ends; nil: nowhere
	Now     func() time.Time // this machine's clock, for tests; nil: the system's
}

// Monitor measures this machine's clock. Its methods may be called by any goroutine.
type Monitor struct {
	cfg    Config
	now    func() time.Time // wall clock
	kernel func() Reading
	slot   chan struct{} // held by who measures

	mu struct {
		sync.Mutex
		newest Evidence // its beginning is zero: none
		paused bool
		why    string
	}
}

// instant is a moment by both clocks.
type instant struct{ wall, mono time.Time }

func (m *Monitor) instant() instant { return instant{m.now().Round(0), time.Now()} }

// step is by how much the wall clock was set between two moments. The kernel slews both clocks alike, so only jumps show.
func (a instant) step(b instant) time.Duration { return b.wall.Sub(a.wall) - b.mono.Sub(a.mono) }

// New makes a monitor. It measures nothing before Run or Measure.
func New(cfg Config) *Monitor {
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultLimit
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Monitor{cfg: cfg, now: cfg.Now, kernel: readKernel, slot: make(chan struct{}, 1)}
	if m.now == nil {
		m.now = time.Now
	}
	return m
}

// Run measures at once, then so often that two measurements never end more than Every apart, and when the clock was set. It returns when ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := m.Measure(ctx); err == nil {
			m.rest(ctx)
		}
	}
}

// rest waits until it is time to measure again.
func (m *Monitor) rest(ctx context.Context) {
	period := max(m.cfg.Every-measureBound-lookEvery, m.cfg.Every/2)
	t := time.NewTicker(min(lookEvery, period))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e, _ := m.Newest()
			if time.Since(e.began.mono) >= period || m.wasSet(e.ended, m.instant()) {
				return
			}
		}
	}
}

// Measure asks all sources now, and gives what they say. Calls at the same time share a measurement. It takes 4 s at most, unless the clock is set meanwhile; the error is ctx's.
func (m *Monitor) Measure(ctx context.Context) (Evidence, error) {
	asked := time.Now()
	select {
	case m.slot <- struct{}{}:
		defer func() { <-m.slot }()
	case <-ctx.Done():
		return Evidence{}, ctx.Err()
	}
	if e, ok := m.Newest(); ok && e.began.mono.After(asked) {
		return e, nil
	}
	var e Evidence
	for range tries {
		e = m.measure(ctx)
		if ctx.Err() != nil {
			return Evidence{}, ctx.Err() // what is missing says nothing of the clock
		}
		if !m.wasSet(e.began, e.ended) {
			break
		}
	}
	m.keep(e)
	return e, nil
}

// wasSet tells whether the wall clock was set between two moments, by more than a measurement can do without.
func (m *Monitor) wasSet(a, b instant) bool { return a.step(b).Abs() > m.cfg.Limit/10 }

func (m *Monitor) measure(ctx context.Context) Evidence {
	ctx, cancel := context.WithTimeout(ctx, measureBound)
	defer cancel()
	began := m.instant()
	var asks []func() Reading
	if m.cfg.Servers != nil {
		for _, s := range m.cfg.Servers() {
			asks = append(asks, func() Reading { return askServer(ctx, s, m.cfg.Limit, m.cfg.Now) })
		}
	}
	if m.cfg.Peers != nil {
		for _, p := range m.cfg.Peers() {
			asks = append(asks, func() Reading { return p.ask(ctx, m.cfg.Limit) })
		}
	}
	all := make([]Reading, len(asks), len(asks)+1)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, ask := range asks {
		g.Go(func() error { all[i] = ask(); return nil })
	}
	_ = g.Wait() // none has an error
	e := judge(append(all, m.kernel()), m.cfg.Limit)
	e.began, e.ended = began, m.instant()
	e.At = e.ended.wall
	return e
}

func (m *Monitor) keep(e Evidence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.mu.paused
	m.mu.newest, m.mu.paused = e, e.pause(was, m.cfg.Limit)
	if e.Known { // else the last reason stands
		m.mu.why = e.reason(m.cfg.Limit)
	}
	switch {
	case m.mu.paused && !was:
		m.cfg.Log.Warn("backups pause: "+m.mu.why, "offset", e.Offset, "error", e.Error)
	case was && !m.mu.paused:
		m.cfg.Log.Info("the clock is right again: backups go on", "offset", e.Offset, "error", e.Error, "by", e.By)
	}
}

// Newest gives the newest evidence; false: nothing was measured yet.
func (m *Monitor) Newest() (Evidence, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.newest, !m.mu.newest.began.mono.IsZero()
}

// Paused tells whether backups pause because of the clock, and why, in one line that says what to do. It waits for nothing.
func (m *Monitor) Paused() (reason string, paused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.paused {
		return "", false
	}
	return m.mu.why, true
}
