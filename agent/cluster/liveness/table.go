package liveness

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Config has the figures. What is zero is the default.
type Config struct {
	Interval    time.Duration // between rounds; 5 s
	Jitter      time.Duration // that is added or taken away at random; 2 s
	CallTimeout time.Duration // of one probe; 2 s
	Timeout     time.Duration // of silence; 15 s
	MaxTimeout  time.Duration // for agents that were silent before; 60 s
	Others      int           // that are probed beside the neighbours; 2
	Asked       int           // peers that are asked about one that doesn't answer; 3
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&c.Interval, 5*time.Second)
	set(&c.Jitter, 2*time.Second)
	set(&c.CallTimeout, 2*time.Second)
	set(&c.Timeout, 15*time.Second)
	set(&c.MaxTimeout, max(60*time.Second, c.Timeout))
	if c.Others <= 0 {
		c.Others = 2
	}
	if c.Asked <= 0 {
		c.Asked = 3
	}
	return c
}

// Lease is what is known of an agent's lease.
type Lease int

// What can be known of a lease.
const (
	LeaseUnknown Lease = iota // nobody can tell now
	LeaseHeld
	LeaseLost
)

// Probe is what one probe has found.
type Probe struct {
	From, To string
	At       time.Time     // when it was answered or given up, by this machine's clock
	Latency  time.Duration // until it was answered or given up
	Err      error         // nil: it was answered
}

// Report is what an agent tells others of its newest probe of a peer. Ages are sent in place of times, so that clocks don't matter.
type Report struct {
	Peer    string
	Age     time.Duration // since it was answered or given up
	Latency time.Duration
	Error   string // empty: it was answered
}

// path is how one agent fares with reaching another.
type path struct {
	ok      time.Time // when it last did; zero: never
	latency time.Duration
	failing time.Time // when the first attempt since began that failed; zero: none did
	failed  time.Time // when it last failed
	times   int       // it failed since
	err     error
}

// member is one agent as this one knows it.
type member struct {
	name   string
	lease  Lease
	since  time.Time        // when the lease became that
	leased bool             // it was ever known to be held
	paths  map[string]*path // from whom
	heard  time.Time        // when anybody last heard of it
	acted  time.Time        // when it was last seen to do something; acted <= heard
	how    string           // what that was
	hist   history
	asked  int // how many were asked about it
}

// Table is what one agent knows of all. Its methods may be called by any goroutine. Times given to it are this process's, with their monotonic readings.
type Table struct {
	here string
	cfg  Config

	mu struct {
		sync.Mutex
		members map[string]*member
	}
}

// NewTable makes the table of the agent with the name here.
func NewTable(here string, cfg Config) *Table {
	t := &Table{here: here, cfg: cfg.withDefaults()}
	t.mu.members = make(map[string]*member)
	t.SetMembers(nil)
	return t
}

// SetMembers says which agents belong to the cluster, whether they are there or not. This one always does. What is known of those that stay is kept.
func (t *Table) SetMembers(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names = append([]string{t.here}, names...)
	for name, m := range t.mu.members {
		if !slices.Contains(names, name) {
			delete(t.mu.members, name)
			continue
		}
		for from := range m.paths {
			if !slices.Contains(names, from) {
				delete(m.paths, from)
			}
		}
	}
	for _, name := range names {
		if t.mu.members[name] == nil {
			t.mu.members[name] = &member{name: name, paths: make(map[string]*path)}
		}
	}
}

// Members gives the names of all agents, sorted.
func (t *Table) Members() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.namesLocked()
}

func (t *Table) namesLocked() []string {
	var names []string
	for name := range t.mu.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// SetLease says how an agent's lease is.
func (t *Table) SetLease(name string, l Lease, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.mu.members[name]; m != nil && m.lease != l {
		m.lease, m.since, m.leased = l, now, m.leased || l == LeaseHeld
	}
}

// Observe notes what a probe has found. One of agents that aren't members, or older than what is known, changes nothing.
func (t *Table) Observe(p Probe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.observeLocked(p)
}

func (t *Table) observeLocked(p Probe) {
	from, to := t.mu.members[p.From], t.mu.members[p.To]
	if from == nil || to == nil || from == to {
		return
	}
	w := to.paths[p.From]
	if w == nil {
		w = &path{}
		to.paths[p.From] = w
	}
	switch {
	case p.Err == nil && p.At.After(w.ok):
		w.ok, w.latency = p.At, p.Latency
		if !p.At.Before(w.failed) {
			w.failing, w.times = time.Time{}, 0
		}
		t.signLocked(to, p.At)
		t.actedLocked(from, p.At, "reached "+p.To)
	case p.Err != nil && p.At.After(w.failed) && p.At.After(w.ok):
		if w.failing.IsZero() {
			// A call takes no longer than its bound: what is beyond that, this process has rested.
			w.failing = p.At.Add(-min(p.Latency, t.cfg.CallTimeout))
		}
		w.failed, w.err = p.At, p.Err
		w.times++
		to.hist.doubt = true
	}
}

func (t *Table) actedLocked(m *member, at time.Time, how string) {
	if m.name != t.here && at.After(m.acted) {
		m.acted, m.how = at, how
		t.signLocked(m, at)
	}
}

// signLocked notes a sign of life.
func (t *Table) signLocked(m *member, at time.Time) {
	m.hist.sign(at, t.cfg)
	if at.After(m.heard) {
		m.heard = at
	}
}

// Heard notes that an agent has called this one.
func (t *Table) Heard(name string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.mu.members[name]; m != nil {
		t.actedLocked(m, now, "called this node")
	}
}

// Reports gives what this agent's newest probes have found, to be sent to others.
func (t *Table) Reports(now time.Time) (all []Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range t.namesLocked() {
		w := t.mu.members[name].paths[t.here]
		switch {
		case w == nil:
		case w.failing.IsZero():
			all = append(all, Report{Peer: name, Age: now.Sub(w.ok), Latency: w.latency})
		default:
			all = append(all, Report{Peer: name, Age: now.Sub(w.failed), Error: w.err.Error()})
		}
	}
	return all
}

// Merge notes the reports that an agent has sent of its own probes, just now.
func (t *Table) Merge(from string, reports []Report, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.mu.members[from]
	if m == nil || from == t.here {
		return
	}
	t.actedLocked(m, now, "sent reports")
	for _, r := range reports {
		p := Probe{From: from, To: r.Peer, At: now.Add(-max(r.Age, 0)), Latency: r.Latency}
		if r.Error != "" {
			p.Err = errors.New(r.Error)
		}
		t.observeLocked(p)
	}
}
