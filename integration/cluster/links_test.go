package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

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
