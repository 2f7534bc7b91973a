package liveness

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is what an agent is judged to be.
type State string

// The states, as the package's documentation defines them.
const (
	Alive       State = "alive"
	Suspect     State = "suspect"
	Unreachable State = "unreachable"
	Dead        State = "dead"
)

// Verdict is the judgement of one agent.
type Verdict struct {
	Name     string
	State    State
	Silent   time.Duration // since anybody heard of it; 0 if nobody ever did
	Evidence []string      // sentences for people
	// RoundTrip is how long this agent's last probe that it answered took; 0 if none did.
	RoundTrip time.Duration
}

// Judge judges one agent, as this one sees it. One that is no member is dead.
func (t *Table) Judge(name string, now time.Time) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.judgeLocked(name, now, t.companyLocked(now))
}

// All judges all agents, in the order of their names.
func (t *Table) All(now time.Time) (all []Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	others := t.companyLocked(now)
	for _, name := range t.namesLocked() {
		all = append(all, t.judgeLocked(name, now, others))
	}
	return all
}

func (t *Table) judgeLocked(name string, now time.Time, others company) Verdict {
	v := Verdict{Name: name}
	m := t.mu.members[name]
	switch {
	case m == nil:
		v.State, v.Evidence = Dead, []string{"it is no member of the cluster"}
		return v
	case name == t.here:
		v.State, v.Evidence = Alive, []string{"it is this node"}
		return v
	}
	c := t.caseLocked(m, now, others)
	if !m.heard.IsZero() {
		v.Silent = max(now.Sub(m.heard), 0)
	}
	v.State, v.Evidence, v.RoundTrip = c.decide(), c.sentences(), c.here.latency
	return v
}

// evidence is all that a judgement rests on.
type evidence struct {
	m        *member
	now      time.Time
	cfg      Config
	here     path // this node's way to it; zero: it was never tried
	allowed  time.Duration
	reach    []string // peers that reach it
	cannot   []string // peers that live, and have lately failed to reach it
	peers    int      // peers that live, and can be asked from here
	leases   int      // of peers that hold theirs, whether they can be asked or not
	members  int
	recently bool // it was seen to do something
}

func (t *Table) caseLocked(m *member, now time.Time, others company) *evidence {
	c := &evidence{m: m, now: now, cfg: t.cfg, allowed: m.hist.allowed(t.cfg), members: len(t.mu.members), peers: len(others.living), leases: others.leases}
	c.recently = c.within(m.acted)
	if w := m.paths[t.here]; w != nil {
		c.here = *w
	}
	for name, w := range m.paths {
		switch {
		case name == t.here:
		case w.failing.IsZero() && c.within(w.ok):
			c.reach = append(c.reach, name)
		case others.living[name] && !w.failing.IsZero() && now.Sub(w.failed) <= 2*t.cfg.Timeout && !w.failed.Before(c.here.failing):
			c.cannot = append(c.cannot, name)
		}
	}
	slices.Sort(c.reach)
	slices.Sort(c.cannot)
	return c
}

// company is who else is there, as far as that can be told without judging them.
type company struct {
	living map[string]bool // those who can be taken for witnesses
	leases int             // that are held
}

func (t *Table) companyLocked(now time.Time) company {
	c := company{living: make(map[string]bool)}
	for name, m := range t.mu.members {
		switch {
		case name == t.here:
			continue
		case m.lives(t.here, now, t.cfg):
			c.living[name] = true
		}
		if m.lease == LeaseHeld {
			c.leases++
		}
	}
	return c
}

func (m *member) lives(here string, now time.Time, cfg Config) bool {
	if w := m.paths[here]; w != nil && !w.failing.IsZero() {
		return false
	}
	return m.lease == LeaseHeld || now.Sub(m.heard) <= m.hist.allowed(cfg)
}

func (c *evidence) within(t time.Time) bool { return !t.IsZero() && c.now.Sub(t) <= c.allowed }

// silence is how long this node has tried in vain; 0: it hasn't. Before the first failure an agent wasn't silent for longer than a round: it was not asked.
func (c *evidence) silence() time.Duration {
	if c.here.failing.IsZero() {
		return 0
	}
	since := c.here.failing.Add(-c.cfg.Interval - c.cfg.Jitter)
	if c.here.ok.After(since) {
		since = c.here.ok
	}
	return c.now.Sub(since)
}

func (c *evidence) decide() State {
	known := len(c.reach) > 0 || c.recently
	switch silence := c.silence(); {
	case silence == 0 && (c.within(c.here.ok) || known):
		return Alive
	case silence == 0 && c.m.lease == LeaseHeld && len(c.cannot) == 0:
		return Alive
	case silence < c.allowed:
		return Suspect
	case known || c.m.lease == LeaseHeld:
		return Unreachable
	case c.now.Sub(c.here.failed) > c.cfg.Timeout:
		return Suspect // this process has rested: nobody is judged by what it knew before
	}
	return c.alone()
}

// alone decides about an agent of which there is no sign at all.
func (c *evidence) alone() State {
	switch {
	case c.m.lease == LeaseLost && len(c.cannot) > 0, c.m.lease == LeaseLost && c.peers+c.leases == 0:
		return Dead
	case c.m.lease == LeaseLost && c.peers > 0:
		return Suspect // they are being asked
	case c.m.lease == LeaseLost:
		return Unreachable // this node can't ask those who could know
	case 1+len(c.cannot) > c.members/2 && len(c.cannot) > 0:
		return Dead
	}
	return Unreachable
}

func (c *evidence) sentences() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch silence := c.silence(); {
	case silence > 0 && c.here.ok.IsZero():
		say("this node has never reached it: %s, the last time %v", times(c.here.times), c.here.err)
	case silence > 0:
		say("this node hasn't reached it for %s: it failed %s, the last time with: %v", age(silence), times(c.here.times), c.here.err)
	case c.here.ok.IsZero():
		say("this node hasn't tried to reach it yet")
	default:
		say("this node reached it %s ago, in %s", age(c.now.Sub(c.here.ok)), c.here.latency.Round(10*time.Microsecond))
	}
	if len(c.reach) > 0 {
		say("reached by %s", list(c.reach))
	}
	switch {
	case len(c.cannot) > 0 && c.silence() > 0:
		say("not reached by %s either", list(c.cannot))
	case len(c.cannot) > 0:
		say("not reached by %s", list(c.cannot))
	}
	if c.recently && c.silence() > 0 {
		say("it %s %s ago", c.m.how, age(c.now.Sub(c.m.acted)))
	}
	switch c.m.lease {
	case LeaseHeld:
		say("it renews its lease")
	case LeaseLost:
		text := "its lease ran out %s ago"
		if !c.m.leased {
			text = "it has had no lease for %s at least"
		}
		say(text, age(c.now.Sub(c.m.since)))
	case LeaseUnknown:
		say("nothing is known of its lease")
	}
	if c.allowed > c.cfg.Timeout {
		say("it was silent before, for up to %s, and came back: so %s of silence are allowed, not %s", age(c.m.hist.longest()), age(c.allowed), c.cfg.Timeout)
	}
	if c.silence() > 0 && c.peers == 0 && c.members > 2 {
		say("no other node answers this one: it may be this one that is cut off")
	}
	return out
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// age rounds a time to what matters.
func age(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// list writes some names, and how many there are besides.
func list(names []string) string {
	if n := len(names); n > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), n-3)
	}
	return strings.Join(names, ", ")
}
