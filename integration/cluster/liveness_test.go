package cluster

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

var liveness = flag.Bool("cluster.liveness", false, "links that are broken, flap or are slow, and agents that are paused, for minutes")

const (
	// holdBound is how long a write may take at a hold of 1 s, the default, on a machine that does other things too.
	holdBound = 3 * time.Second
	// leastLease is how long a lease lives at least from any moment on: it has 15 s, and is renewed every 5 s.
	leastLease = 10 * time.Second
)

// links is a cluster whose nodes are watched, while clients write and snapshots are taken, and links are bad.
type links struct {
	*scene
	w           *watch
	leader      *Node // of etcd
	withoutEtcd bool  // snapshots may also be refused for want of it
	begun       time.Time

	tries []try // of taking; read when that has stopped
}

// try is a snapshot that was asked for.
type try struct {
	at   time.Time
	by   *Node
	name string
	mark []uint64
	outcome
}

// newLinks starts a cluster for a test that takes long. x is neither the coordinator nor the leader of etcd, nor is y if there are five.
func newLinks(t *testing.T, size int) *links {
	t.Helper()
	t.Parallel()
	if !*liveness {
		t.Skip("takes long: -cluster.liveness")
	}
	l := &links{scene: newScene(start(t, Options{Net: network(t, size), Size: size}), 1)}
	l.w = l.watch()
	l.w.reached()
	ctx, cancel := l.bounded()
	defer cancel()
	var err error
	if l.co, err = l.Coordinator(ctx); err != nil {
		t.Fatal(err)
	}
	l.leader = l.etcdLeader(ctx)
	l.y = l.leader
	for _, n := range l.Nodes {
		switch {
		case n == l.co || n == l.leader:
		case l.x == nil:
			l.x = n
		default:
			l.y = n
		}
	}
	t.Logf("coordinator %s, leader of etcd %s, x %s, y %s", l.co.Name, l.leader.Name, l.x.Name, l.y.Name)
	l.p.Longest()
	l.begun = time.Now()
	return l
}

// etcdLeader asks the nodes' own etcds which of them leads.
func (t *test) etcdLeader(ctx context.Context) (leader *Node) {
	t.Helper()
	t.eventually("etcd has a leader", func(context.Context) bool {
		for _, n := range t.Nodes {
			socket := "unix://" + filepath.Join(n.State, "etcd:0")
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{socket}})
			if err != nil {
				t.Fatal(err)
			}
			st, err := c.Status(ctx, socket)
			c.Close()
			if err == nil && st.Leader == st.Header.MemberId {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// taking asks nodes for snapshots in turn, until stop is called.
func (l *links) taking(by ...*Node) (stop func()) {
	ctx, cancel := context.WithCancel(l.Context())
	var asked sync.WaitGroup
	asked.Go(func() {
		for i := len(l.tries); ctx.Err() == nil; i++ {
			l.try(by[i%len(by)], fmt.Sprintf("s%d", i))
			l.lasts(ctx, time.Second)
		}
	})
	return func() { cancel(); asked.Wait() }
}

func (l *links) try(by *Node, name string) {
	ctx, cancel := l.bounded()
	defer cancel()
	t := try{at: time.Now(), by: by, name: name, mark: l.p.Mark()}
	t.row, t.err = by.Snapshot(ctx, name)
	l.tries = append(l.tries, t)
}

// lasts waits while a trouble does.
func (l *links) lasts(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// healed ends the trouble, and looks at what it has left: all nodes find each other, no write has waited for longer than a hold, each snapshot is whole or was refused in a line that names one of
// some nodes, and the next one succeeds.
func (l *links) healed(named ...*Node) {
	l.Helper()
	l.mend()
	l.w.allAlive()
	l.w.log(l.begun)
	l.judgeTries(named)
	longest := l.p.Longest()
	l.Logf("the longest write took %v", longest.Round(time.Millisecond))
	if longest > holdBound {
		l.Errorf("a write took %v", longest)
	}
	for _, r := range l.final() {
		if r.State == "complete" {
			l.checkWhole(r)
		}
	}
	l.checkWhole(l.next("healed"))
	l.leftovers()
}

func (l *links) judgeTries(named []*Node) {
	l.Helper()
	taken := 0
	for _, t := range l.tries {
		if t.err == nil {
			taken++
			l.checkTaken(l.p, t.mark, t.row, t.name)
			continue
		}
		l.oneLine(t.err, "")
		l.Logf("after %v, by node %s: %v", t.at.Sub(l.begun).Round(time.Second), t.by.Name, t.err)
		if l.withoutEtcd && strings.Contains(t.err.Error(), "etcd doesn't answer") {
			continue
		}
		if !slices.ContainsFunc(named, func(n *Node) bool { return names(t.err, n) }) {
			l.Errorf("after %v node %s has refused a snapshot, and names none of those that are in trouble: %v", t.at.Sub(l.begun).Round(time.Second), t.by.Name, t.err)
		}
	}
	l.Logf("%d snapshots were taken, %d refused", taken, len(l.tries)-taken)
}

// names tells whether an error says which node it is about.
func names(err error, n *Node) bool {
	return regexp.MustCompile(`(node|nodes:|coordinator) ` + n.Name + `\b`).MatchString(err.Error())
}

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

// slow makes a node slow, and has snapshots taken of all meanwhile.
func (l *links) slow(n *Node, delay time.Duration, meanwhile func()) {
	l.Helper()
	if err := l.Net.Slow(n.number, delay); err != nil {
		l.Fatal(err)
	}
	stop := l.taking(slices.DeleteFunc(slices.Clone(l.Nodes), func(other *Node) bool { return other == n })...)
	defer stop()
	meanwhile()
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
