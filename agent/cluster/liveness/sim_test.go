package liveness

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is agents and what lies between them. Times are the bubble's.
type network struct {
	*testing.T
	names   []string
	tables  map[string]*Table
	probers map[string]*Prober
	stop    context.CancelFunc
	ended   sync.WaitGroup

	mu struct {
		sync.Mutex
		cut     map[[2]string]bool          // calls from one to the other
		delay   map[[2]string]time.Duration // of calls; else a millisecond
		stopped map[string]bool             // processes
		calls   int
		starts  map[string][]time.Time // of direct calls, by who makes them
	}
}

// dialer is one agent's view of the network.
type dialer struct {
	n    *network
	here string
}

var errCut = errors.New("the link is cut")

func (d dialer) Probe(ctx context.Context, peer string) error {
	d.n.mu.Lock()
	d.n.mu.calls++
	d.n.mu.starts[d.here] = append(d.n.mu.starts[d.here], time.Now())
	d.n.mu.Unlock()
	err := d.n.travel(ctx, d.here, peer)
	d.n.awake(d.here)
	return err
}

func (d dialer) ProbeVia(ctx context.Context, via, peer string) error {
	err := d.n.travel(ctx, d.here, via)
	if err == nil {
		inner, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if d.n.travel(inner, via, peer) != nil {
			err = ErrNotReached
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	d.n.awake(d.here)
	return err
}

// awake waits while a process is stopped: it can't see that its time is up.
func (n *network) awake(name string) {
	for n.is(n.mu.stopped, name) {
		time.Sleep(50 * time.Millisecond)
	}
}

func (n *network) is(of map[string]bool, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return of[name]
}

// travel is a call and its answer. A cut is silent, as a lost packet is.
func (n *network) travel(ctx context.Context, from, to string) error {
	n.mu.Lock()
	lost := n.mu.cut[[2]string{from, to}] || n.mu.stopped[to]
	delay := time.Millisecond
	if d, ok := n.mu.delay[[2]string{from, to}]; ok {
		delay = d
	}
	n.mu.Unlock()
	if lost {
		<-ctx.Done()
		return errors.Join(errCut, ctx.Err())
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newNetwork starts agents. Leases are held.
func newNetwork(t *testing.T, n int) *network {
	w := &network{T: t, names: names(n), tables: map[string]*Table{}, probers: map[string]*Prober{}}
	w.mu.cut, w.mu.delay = map[[2]string]bool{}, map[[2]string]time.Duration{}
	w.mu.stopped, w.mu.starts = map[string]bool{}, map[string][]time.Time{}
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	for _, name := range w.names {
		tab := NewTable(name, Config{})
		tab.SetMembers(w.names)
		w.tables[name] = tab
	}
	for _, name := range w.names {
		w.lease(name, LeaseHeld)
		p := NewProber(w.tables[name], dialer{w, name})
		w.probers[name] = p
		w.ended.Go(func() { p.Run(ctx) })
	}
	return w
}

// end ends all agents, and waits for their goroutines.
func (n *network) end() {
	n.set(func() { clear(n.mu.stopped) })
	n.stop()
	n.ended.Wait()
}

func (n *network) lease(name string, l Lease) {
	for _, t := range n.tables {
		t.SetLease(name, l, time.Now())
	}
}

func (n *network) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// cut lets no calls through from some to others.
func (n *network) cut(from, to []string, cut bool) {
	n.set(func() {
		for _, a := range from {
			for _, b := range to {
				n.mu.cut[[2]string{a, b}] = cut
			}
		}
	})
}

// isolate cuts a node off from all others, both ways.
func (n *network) isolate(name string, cut bool) {
	n.cut([]string{name}, n.names, cut)
	n.cut(n.names, []string{name}, cut)
}

func (n *network) judge(here, name string) Verdict { return n.tables[here].Judge(name, time.Now()) }

// until waits until one judges another so, and tells how long that took.
func (n *network) until(here, name string, s State, most time.Duration) time.Duration {
	n.Helper()
	start := time.Now()
	for time.Since(start) <= most {
		if n.judge(here, name).State == s {
			return time.Since(start)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	n.Fatalf("%s isn't %s for %s after %s, but %+v", name, s, here, most, n.judge(here, name))
	return 0
}

// never runs for a time, in which nobody may judge somebody so.
func (n *network) never(long time.Duration, bad ...State) {
	n.Helper()
	for start := time.Now(); time.Since(start) < long; time.Sleep(3 * time.Second) {
		synctest.Wait()
		for here, t := range n.tables {
			for _, v := range t.All(time.Now()) {
				if slices.Contains(bad, v.State) && !n.is(n.mu.stopped, here) {
					n.Fatalf("after %s %s judges %s: %+v", time.Since(start), here, v.Name, v)
				}
			}
		}
	}
}

// neighbour gives one that an agent probes in every round.
func (n *network) neighbour(name string) string { return Targets(n.names, name, 0, 0)[0] }

func simulate(t *testing.T, name string, agents int, f func(t *testing.T, n *network)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, agents)
			defer n.end()
			time.Sleep(time.Minute)
			synctest.Wait()
			f(t, n)
		})
	})
}

func TestSimulated(t *testing.T) {
	simulate(t, "all are well", 64, allWell)
	for _, agents := range []int{3, 5, 64} {
		simulate(t, "a death", agents, death)
	}
	simulate(t, "a death of two", 2, deathOfTwo)
	simulate(t, "one way cut", 5, oneWay)
	simulate(t, "cut off from all but etcd", 5, onlyEtcd)
	simulate(t, "cluster in two", 5, inTwo)
	simulate(t, "flapping", 5, flapping)
	simulate(t, "slow", 5, slow)
	simulate(t, "the judge is stopped", 5, judgeStopped)
	simulate(t, "a process is stopped", 5, processStopped)
	simulate(t, "confirmed at once", 5, confirmed)
	simulate(t, "members leave", 5, leave)
}

func allWell(t *testing.T, n *network) {
	n.set(func() { clear(n.mu.starts) })
	n.never(90*time.Second, Suspect, Unreachable, Dead)
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, at := range n.mu.starts {
		var rounds []time.Time
		for i := 0; i < len(at); i += 4 {
			if i+3 < len(at) && at[i+3] != at[i] {
				t.Fatalf("%s: a round isn't of four: %v", name, at[i:i+4])
			}
			rounds = append(rounds, at[i])
		}
		short, long := time.Hour, time.Duration(0)
		for i := range rounds[1:] {
			d := rounds[i+1].Sub(rounds[i])
			short, long = min(short, d), max(long, d)
		}
		if short < 3*time.Second || long > 7*time.Second || long-short < time.Second {
			t.Fatalf("%s: rounds are %s to %s apart", name, short, long)
		}
	}
}

func death(t *testing.T, n *network) {
	x := n.names[1]
	here := n.neighbour(x)
	n.set(func() { n.mu.stopped[x] = true })
	took := n.until(here, x, Suspect, 10*time.Second)
	n.until(here, x, Unreachable, 20*time.Second) // its lease is still held
	n.lease(x, LeaseLost)
	took += n.until(here, x, Dead, time.Second)
	if v := n.judge(here, x); v.Silent < 15*time.Second || v.Silent > 30*time.Second || !strings.Contains(strings.Join(v.Evidence, "; "), "either") {
		t.Errorf("dead after %s: %+v", took, v)
	}
	for _, other := range n.names {
		if other != x {
			n.until(other, x, Dead, 40*time.Second) // its lease makes all look
		}
	}
	calls := func() int { n.mu.Lock(); defer n.mu.Unlock(); return n.mu.calls }
	before := calls()
	for _, via := range n.names[2:] { // asking takes as long as it may
		n.set(func() { n.mu.delay[[2]string{via, x}] = time.Hour })
	}
	for range 90 {
		time.Sleep(time.Second)
		if v := n.judge(here, x); v.State != Dead {
			t.Fatalf("dead, and then %+v", v)
		}
	}
	if rate := float64(calls()-before) / float64(len(n.names)) / 90; rate > 1.1 {
		t.Errorf("%.2f calls a second from each while one is dead", rate)
	}
	n.until(here, x, Dead, 0)
	n.set(func() { clear(n.mu.delay); n.mu.stopped[x] = false })
	n.lease(x, LeaseHeld)
	n.until(here, x, Alive, 15*time.Second)
}

func deathOfTwo(t *testing.T, n *network) {
	a, b := n.names[0], n.names[1]
	n.lease(b, LeaseUnknown)
	n.set(func() { n.mu.stopped[b] = true })
	n.until(a, b, Unreachable, 30*time.Second)
	n.never(time.Minute, Dead)
	n.lease(b, LeaseLost)
	n.until(a, b, Dead, 0)
}

// oneWay: a doesn't reach x, everybody else does: x is never dead, even with its lease lost.
func oneWay(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	n.lease(x, LeaseLost)
	n.cut([]string{a}, []string{x}, true)
	n.until(a, x, Unreachable, 40*time.Second)
	v := n.judge(a, x)
	if text := strings.Join(v.Evidence, "; "); !strings.Contains(text, "reached by node") || !strings.Contains(text, errCut.Error()) {
		t.Errorf("evidence: %+v", v)
	}
	n.never(10*time.Minute, Dead)
	for _, other := range n.names[2:] {
		if v := n.judge(other, x); v.State != Alive {
			t.Errorf("%s judges it %+v", other, v)
		}
	}
	n.cut([]string{a}, []string{x}, false)
	n.until(a, x, Alive, 15*time.Second)

	// Nobody reaches x, but x calls.
	n.cut(n.names, []string{x}, true)
	for range 120 {
		time.Sleep(time.Second)
		n.tables[a].Heard(x, time.Now())
		if v := n.judge(a, x); v.State == Dead {
			t.Fatalf("it calls: %+v", v)
		}
	}
	n.until(a, x, Unreachable, 0)
}

func onlyEtcd(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	n.isolate(x, true)
	n.until(a, x, Unreachable, 40*time.Second)
	n.never(5*time.Minute, Dead)
	if v := n.judge(x, a); v.State != Unreachable || !strings.Contains(strings.Join(v.Evidence, "; "), "cut off") {
		t.Errorf("it judges others %+v", v)
	}
	n.isolate(x, false)
	n.until(a, x, Alive, 15*time.Second)
	n.until(x, a, Alive, 15*time.Second)
}

// inTwo: three here, two there, and no side knows of leases. Neither side loses sight of its own; the smaller one calls nobody dead.
func inTwo(t *testing.T, n *network) {
	large, small := n.names[:3], n.names[3:]
	for _, name := range n.names {
		n.lease(name, LeaseUnknown)
	}
	n.cut(large, small, true)
	n.cut(small, large, true)
	for range 300 {
		time.Sleep(time.Second)
		synctest.Wait()
		n.share(large)
		n.share(small)
		for _, a := range small {
			for _, v := range n.tables[a].All(time.Now()) {
				if v.State == Dead {
					t.Fatalf("%s judges %+v", a, v)
				}
			}
		}
	}
	for _, a := range large {
		for _, b := range large {
			if v := n.judge(a, b); v.State != Alive {
				t.Errorf("%s judges %+v", a, v)
			}
		}
		for _, b := range small {
			n.until(a, b, Dead, 20*time.Second)
		}
	}
}

// share has some share their reports.
func (n *network) share(some []string) {
	for _, from := range some {
		for _, to := range some {
			if from != to {
				n.tables[to].Merge(from, n.tables[from].Reports(time.Now()), time.Now())
			}
		}
	}
}

// flapping: at first it is called dead, as its lease is lost too; when it has come back some times, it is given more time.
func flapping(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	down := func(long time.Duration) (dead bool) {
		n.isolate(x, true)
		n.lease(x, LeaseLost)
		for start := time.Now(); time.Since(start) < long; time.Sleep(200 * time.Millisecond) {
			synctest.Wait()
			dead = dead || n.judge(a, x).State == Dead
		}
		n.isolate(x, false)
		n.lease(x, LeaseHeld)
		n.until(a, x, Alive, 15*time.Second)
		time.Sleep(20 * time.Second)
		return dead
	}
	if !down(22 * time.Second) {
		t.Error("not dead though it was away for 22 s")
	}
	for range 6 {
		down(22 * time.Second)
	}
	if down(22 * time.Second) {
		t.Errorf("dead though it always came back after 22 s: %+v", n.judge(a, x))
	}
	if !down(80 * time.Second) {
		t.Error("not dead after 80 s")
	}
}

func slow(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	for _, other := range n.names {
		n.set(func() { n.mu.delay[[2]string{other, x}] = 1900 * time.Millisecond })
	}
	n.never(3*time.Minute, Suspect, Unreachable, Dead)
	if v := n.judge(a, x); !strings.Contains(v.Evidence[0], "in 1.9s") {
		t.Errorf("evidence %v", v.Evidence)
	}
	n.lease(x, LeaseLost)
	n.set(func() { n.mu.delay[[2]string{a, x}] = 2100 * time.Millisecond })
	n.until(a, x, Unreachable, time.Minute)
	n.never(3*time.Minute, Dead)
}

// judgeStopped: a process that was stopped blames nobody for the time that it has missed, even if nobody's lease is known to it.
func judgeStopped(t *testing.T, n *network) {
	a := n.names[0]
	for range 3 {
		n.set(func() { n.mu.stopped[a] = true })
		time.Sleep(time.Minute)
		for _, name := range n.names {
			n.tables[a].SetLease(name, LeaseLost, time.Now())
		}
		n.set(func() { n.mu.stopped[a] = false })
		for range 100 {
			for _, v := range n.tables[a].All(time.Now()) {
				if v.State == Dead || v.State == Unreachable {
					t.Fatalf("after its pause it judges %+v", v)
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		for _, b := range n.names[1:] {
			n.until(a, b, Alive, 10*time.Second)
		}
	}
}

func processStopped(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	n.set(func() { n.mu.stopped[x] = true })
	n.until(a, x, Unreachable, 40*time.Second)
	n.lease(x, LeaseLost)
	n.until(a, x, Dead, time.Second)
	n.set(func() { n.mu.stopped[x] = false })
	n.until(a, x, Alive, 15*time.Second)
}

func confirmed(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	start := time.Now()
	if v := n.probers[a].Confirm(t.Context(), x); v.State != Alive || time.Since(start) > time.Second {
		t.Errorf("%+v after %s", v, time.Since(start))
	}
	n.cut([]string{a}, []string{x}, true)
	start = time.Now()
	v := n.probers[a].Confirm(t.Context(), x)
	if v.State != Suspect || !strings.Contains(strings.Join(v.Evidence, "; "), "reached by") || time.Since(start) > 6*time.Second {
		t.Errorf("%+v after %s", v, time.Since(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start = time.Now()
	n.probers[a].Confirm(ctx, x)
	if time.Since(start) > 100*time.Millisecond {
		t.Errorf("a call that was given up took %s", time.Since(start))
	}
}

// leave: agents that are members no more are left alone.
func leave(t *testing.T, n *network) {
	a, x := n.names[0], n.names[1]
	n.set(func() { n.mu.stopped[x] = true })
	n.until(a, x, Suspect, 20*time.Second)
	for _, tab := range n.tables {
		tab.SetMembers(slices.DeleteFunc(slices.Clone(n.names), func(name string) bool { return name == x }))
	}
	time.Sleep(20 * time.Second)
	synctest.Wait()
	p := n.probers[a]
	p.mu.Lock()
	busy := len(p.mu.busy)
	p.mu.Unlock()
	if busy != 0 {
		t.Errorf("%d are still probed", busy)
	}
	n.never(time.Minute, Suspect, Unreachable, Dead)
}
