package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEtcdElsewhere: agents agree by an etcd that is there already. Without one of its members nothing changes; without all of them volumes work on, and what needs it says so; when it is back, so are
// they. Agents may be restarted meanwhile.
func TestEtcdElsewhere(t *testing.T) {
	t.Parallel()
	e := newEtcd(t)
	c := start(t, Options{Net: Loopback(), Etcd: e.urls(), Extra: e.config})
	p := c.pairs()
	rows := []Row{c.take(p, c.Nodes[1], "all-members")}
	for _, n := range c.Nodes {
		if _, err := os.Stat(filepath.Join(n.State, "etcd")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("node %s has an etcd of its own: %v", n.Name, err)
		}
	}
	e.kill(0)
	rows = append(rows, c.take(p, c.Nodes[2], "two-members"))
	e.kill(1, 2)
	c.withoutAny(p)
	e.start()
	ctx, cancel := c.bounded()
	defer cancel()
	if err := c.Whole(ctx); err != nil {
		t.Fatal(err)
	}
	rows = append(rows, c.take(p, c.Nodes[1], "back"))
	c.checkWhole(rows...)
}

// withoutAny: what goes on and what doesn't while etcd is away. One agent is restarted.
func (t *test) withoutAny(p *Pairs) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	restarted := t.Nodes[0]
	before := t.pids(ctx, restarted)
	restarted.Kill()
	var all sync.WaitGroup
	all.Go(func() {
		if err := restarted.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, args := range [][]string{{"status"}, {"snapshot"}, {"snapshots"}} {
		all.Go(func() { t.refused(t.Nodes[1], 1, "etcd doesn't answer", args...) })
	}
	all.Wait()
	t.progress(p)
	if after := t.pids(ctx, restarted); !slices.Equal(before, after) {
		t.Errorf("servers and holders before and after the agent was restarted: %v, %v", before, after)
	}
}

// TestEtcdElsewhereHangs: an etcd that hangs for longer than leases last is like one that is away, and all find each other when it goes on.
func TestEtcdElsewhereHangs(t *testing.T) {
	t.Parallel()
	if !*liveness {
		t.Skip("takes long: -cluster.liveness")
	}
	e := newEtcd(t)
	s := newScene(start(t, Options{Net: Loopback(), Etcd: e.urls(), Extra: e.config}), 1)
	s.etcd, s.y = e, s.Nodes[2]
	rows := []Row{s.next("before")}
	e.signal(unix.SIGSTOP)
	begun := time.Now()
	for _, args := range [][]string{{"status"}, {"snapshot"}, {"snapshots"}} {
		s.refused(s.Nodes[1], 1, "etcd doesn't answer", args...)
	}
	s.progress(s.p)
	select {
	case <-t.Context().Done():
	case <-time.After(time.Until(begun.Add(25 * time.Second))):
	}
	s.mend()
	rows = append(rows, s.next("after"))
	s.final()
	s.checkWhole(rows...)
	s.leftovers()
}

// TestEtcdElsewhereTroubles is TestMatrix for an etcd that dies or hangs while agents live.
func TestEtcdElsewhereTroubles(t *testing.T) {
	if !*matrix {
		t.Skip("takes long: -cluster.matrix")
	}
	kill := func(s *scene) error { s.etcd.kill(0, 1, 2); return nil }
	for _, tr := range []trouble{
		{"kill etcd", short, kill, false},
		{"kill etcd for long", long, kill, false},
		{"pause etcd", short, func(s *scene) error { s.etcd.signal(unix.SIGSTOP); return nil }, false},
	} {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			e := newEtcd(t)
			o := matrixOptions(t)
			o.Net, o.Etcd = Loopback(), e.urls()
			o.Extra = func(n *Node) (string, error) {
				etcd, _ := e.config(n)
				text, err := metadata(n)
				return etcd + text, err
			}
			s := newScene(start(t, o), chosenSeed())
			s.etcd = e
			for i, m := range moments() {
				s.during(fmt.Sprintf("s%d", i), m, tr)
			}
		})
	}
}
