package cluster

import (
	"context"
	"flag"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var liveness = flag.Bool("cluster.liveness", false, "links that are broken, flap or are slow, and agents that are paused, for minutes")

// TestLivenessSuspect: two nodes between which packets get lost one way suspect each other, a third one neither, and it passes.
func TestLivenessSuspect(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: network(t, 3)})
	w := c.watch()
	ctx, cancel := c.bounded()
	defer cancel()
	leader := c.etcdLeader(ctx) // without a way to it a node has no status to show
	a, b := c.Nodes[(leader.number+1)%3], c.Nodes[(leader.number+2)%3]
	if err := c.Net.Drop(a.number, b.number); err != nil {
		t.Fatal(err)
	}
	c.eventually("one of them suspects the other", func(context.Context) bool { return w.says(a, b, "suspect") || w.says(b, a, "suspect") })
	if err := c.Net.Heal(); err != nil {
		t.Fatal(err)
	}
	w.allAlive()
	w.nobody("dead", "unreachable")
	for _, n := range c.Nodes {
		w.only(leader, n, "alive")
		w.only(n, leader, "alive")
	}
}

// TestLivenessOneWay: when what one node sends to another gets lost, these two call each other unreachable, others call both alive, and nobody calls anybody dead. If one of them is the
// coordinator, there are no snapshots. (If it leads etcd too, the other one is without that, and has no status to show.)
func TestLivenessOneWay(t *testing.T) {
	for name, who := range map[string]func(*links) (from, to *Node){
		"from the coordinator": func(l *links) (from, to *Node) { return l.co, l.x },
		"to the coordinator":   func(l *links) (from, to *Node) { return l.x, l.co },
		"between other two":    func(l *links) (from, to *Node) { return l.y, l.x },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLinks(t, 5)
			from, to := who(l)
			if err := l.Net.Drop(from.number, to.number); err != nil {
				t.Fatal(err)
			}
			stop := l.taking(slices.DeleteFunc(slices.Clone(l.Nodes), func(n *Node) bool { return n == l.x })...)
			concerned := func(n *Node) bool { return n == from || n == to }
			broken := func(context.Context) bool {
				there, back := l.w.says(from, to, "unreachable", "reached by"), l.w.says(to, from, "unreachable", "reached by")
				return there && back || concerned(l.co) && (there || back)
			}
			l.eventually("the link is called broken, not the node", broken)
			l.lasts(l.Context(), 25*time.Second) // longer than leases
			l.eventually("it still is", broken)
			stop()
			l.w.nobody("dead")
			l.w.each(func(by, of *Node) {
				if !concerned(by) || !concerned(of) {
					l.w.only(by, of, "alive")
				}
			})
			l.healed(from, to)
		})
	}
}

// TestLivenessFlapping: a node whose link goes down and up isn't called dead while its lease lives, and not again and again when it is down for longer than that.
func TestLivenessFlapping(t *testing.T) {
	l := newLinks(t, 3)
	stop := l.taking(l.co, l.y)
	flap := func(times int, down, up time.Duration) {
		for range times {
			if err := l.x.Isolate(); err != nil {
				t.Fatal(err)
			}
			l.lasts(l.Context(), down)
			if err := l.Net.Heal(); err != nil {
				t.Fatal(err)
			}
			l.lasts(l.Context(), up)
		}
	}
	flap(8, 4*time.Second, 4*time.Second)
	l.w.nobody("dead", "unreachable")
	flap(3, 25*time.Second, 10*time.Second)
	stop()
	l.w.each(func(by, of *Node) {
		if n := l.w.count(by, of, "dead"); n > 1 {
			t.Errorf("node %s has called %s dead %d times", by.Name, of.Name, n)
		}
	})
	l.healed(l.x)
}

// TestLivenessSlow: a node whose answers come in time is alive, however slow, and part of snapshots; one whose answers don't isn't dead.
func TestLivenessSlow(t *testing.T) {
	needTAP(t)
	l := newLinks(t, 3)
	l.slow(l.x, 300*time.Millisecond, func() { l.lasts(l.Context(), 30*time.Second) })
	l.w.nobody("dead", "unreachable")
	if !slices.ContainsFunc(l.tries, func(t try) bool { return t.err == nil && t.row.HoldMS > 300 }) {
		t.Errorf("no snapshot was taken of slow nodes: %+v", l.tries)
	}
	l.slow(l.x, 1500*time.Millisecond, func() {
		l.eventually("it isn't reached", func(context.Context) bool {
			return l.w.says(l.co, l.x, "unreachable") && l.w.says(l.y, l.x, "unreachable")
		})
		l.lasts(l.Context(), 25*time.Second)
	})
	l.w.nobody("dead")
	l.healed(l.x)
}

// TestLivenessSlowLeader is TestLivenessSlow for the leader of etcd: this may be too slow for all, and it may be the coordinator, to whom the others are slow.
func TestLivenessSlowLeader(t *testing.T) {
	needTAP(t)
	l := newLinks(t, 3)
	l.withoutEtcd = true
	for _, delay := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond} {
		l.slow(l.leader, delay, func() { l.lasts(l.Context(), 30*time.Second) })
	}
	l.w.nobody("dead")
	l.healed(l.Nodes...)
}

// TestLivenessPaused: an agent that is stopped is called dead only after its lease has run out, and blames nobody when it goes on.
func TestLivenessPaused(t *testing.T) {
	for name, who := range map[string]func(*links) *Node{
		"the coordinator": func(l *links) *Node { return l.co },
		"another node":    func(l *links) *Node { return l.x },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLinks(t, 3)
			paused := who(l)
			others := slices.DeleteFunc(slices.Clone(l.Nodes), func(n *Node) bool { return n == paused })
			l.pausedUntilDead(paused, others)
			for _, of := range others {
				for _, by := range l.Nodes {
					l.w.only(by, of, "alive", "suspect")
				}
			}
			l.healed(paused)
		})
	}
}

// pausedUntilDead stops an agent until both others call it dead, and for some time more.
func (l *links) pausedUntilDead(paused *Node, others []*Node) {
	l.Helper()
	stop := l.taking(others...)
	defer stop()
	if err := paused.Signal(unix.SIGSTOP); err != nil {
		l.Fatal(err)
	}
	stopped := time.Now()
	for _, by := range others {
		l.eventually("node "+by.Name+" calls it dead", func(context.Context) bool {
			return l.w.says(by, paused, "dead", "its lease ran out", "not reached by")
		})
		i := slices.IndexFunc(l.w.of(by, paused), func(s sight) bool { return s.state == "dead" })
		if after := l.w.of(by, paused)[i].since.Sub(stopped); after < leastLease {
			l.Errorf("node %s has called it dead after %v", by.Name, after)
		}
		if l.w.count(by, paused, "suspect") == 0 {
			l.Errorf("node %s has called it dead without ever calling it suspect", by.Name)
		}
	}
	l.lasts(l.Context(), 10*time.Second)
	if err := paused.Signal(unix.SIGCONT); err != nil {
		l.Fatal(err)
	}
	l.w.allAlive()
	for _, by := range others {
		if n := l.w.count(by, paused, "dead"); n != 1 {
			l.Errorf("node %s has called it dead %d times", by.Name, n)
		}
	}
}
