package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// gateBound is how long a write may take, whatever becomes of a snapshot.
const gateBound = 5 * time.Second

// scene is a cluster with clients, to which troubles are done.
type scene struct {
	*test
	p     *Pairs
	rng   *rand.Rand
	disks map[string]*rig.Disk // of nodes whose power can be cut, by their names
	etcd  *etcd                // one that is there already; nil: the agents' own

	// For one trouble.
	name     string
	co       *Node     // the coordinator
	x, y     *Node     // others; commands go to y
	dead     []*Node   // whose machines are
	until    time.Time // it isn't mended before, even if the snapshot has ended
	servers  map[*Node][]int
	before   int // of flushes
	prepared int // how often y was seen prepared
	result   chan outcome
	probes   sync.WaitGroup
}

// outcome is what the command has said.
type outcome struct {
	row Row
	err error
}

// newScene starts a cluster of three nodes under clients.
func newScene(t *test, seed uint64) *scene {
	t.Helper()
	t.Logf("-cluster.seed %d", seed)
	return &scene{test: t, p: t.pairs(), rng: rand.New(rand.NewPCG(seed, 0))}
}

// begin notes who does what, and asks for a snapshot once the moment is armed.
func (s *scene) begin(name string, m moment) {
	s.Helper()
	ctx, cancel := s.bounded()
	defer cancel()
	var err error
	if s.co, err = s.Coordinator(ctx); err != nil {
		s.Fatal(err)
	}
	s.x, s.y = s.Nodes[(s.co.number+1)%3], s.Nodes[(s.co.number+2)%3]
	s.servers = make(map[*Node][]int)
	for _, n := range s.Nodes {
		for _, v := range n.Volumes {
			st, err := v.Status(ctx)
			if err != nil {
				s.Fatal(err)
			}
			s.servers[n] = append(s.servers[n], st.ServerPID)
		}
	}
	s.name, s.result = name, make(chan outcome, 1)
	m.arm(s)
	go func() {
		ctx, cancel := s.bounded()
		defer cancel()
		row, err := s.y.Snapshot(ctx, name)
		s.result <- outcome{row, err}
	}()
}

// ended tells whether the command has returned.
func (s *scene) ended() bool { return len(s.result) > 0 }

// during does a trouble at a moment of a snapshot, and looks at what is left of that.
func (s *scene) during(name string, m moment, tr trouble) {
	s.Helper()
	mark := s.p.Mark()
	s.begin(name, m)
	s.eventually("the moment has come: "+m.name, func(context.Context) bool { return m.await(s) || s.ended() })
	if err := tr.do(s); err != nil {
		s.Fatal(err)
	}
	m.pass(s)
	s.writable()
	out, over := s.await(tr.lasts)
	select {
	case <-s.Context().Done():
	case <-time.After(time.Until(s.until)):
	}
	s.mend()
	if !over {
		out, over = s.await(patience)
	}
	if !over {
		s.Fatalf("the command doesn't return")
	}
	s.judge(mark, out)
	s.eventually("no database is left at rest", func(context.Context) bool {
		return !slices.ContainsFunc(s.volumes(), func(v *volume.Volume) bool {
			_, err := os.Stat(AtRest(v))
			return err == nil
		})
	})
	if m.first && tr.ends {
		s.nothing()
	}
	s.checkWhole(s.next(name + "-next"))
	s.leftovers()
}

// next takes the next snapshot. That the nodes must find each other first is an answer, for some seconds: leases are renewed, and connections that were cut are made anew after pauses that grow to 2 s.
func (s *scene) next(name string) Row {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	for last := ""; ; {
		mark := s.p.Mark()
		row, err := s.y.Snapshot(ctx, name)
		if err == nil {
			s.checkTaken(s.p, mark, row, name)
			return row
		}
		passing := regexp.MustCompile("no snapshot without all nodes|coordinator|connection error|error reading from server").FindString(err.Error())
		if ctx.Err() != nil || passing == "" {
			s.Fatal(err)
		}
		if passing != last {
			s.Log(err)
		}
		last = passing
	}
}

// await waits for the command.
func (s *scene) await(limit time.Duration) (outcome, bool) {
	select {
	case out := <-s.result:
		return out, true
	case <-time.After(limit):
		return outcome{}, false
	}
}

// mend undoes all troubles.
func (s *scene) mend() {
	s.Helper()
	if err := s.Net.Heal(); err != nil {
		s.Fatal(err)
	}
	for _, n := range s.Nodes {
		if err := n.Signal(unix.SIGCONT); err != nil {
			s.Fatal(err)
		}
	}
	for _, n := range s.dead {
		if d := s.disks[n.Name]; d != nil {
			if err := d.PowerUp(); err != nil {
				s.Fatal(err)
			}
		}
	}
	if s.etcd != nil {
		s.etcd.signal(unix.SIGCONT)
		s.etcd.start()
	}
	ctx, cancel := s.bounded()
	defer cancel()
	if err := s.Start(ctx); err != nil {
		s.Fatal(err)
	}
	for _, n := range s.dead {
		s.p.Turn(n.Volumes...)
	}
	s.dead = nil
}

// die is the death of a machine; it has lost its power if it has a disk of its own.
func (s *scene) die(n *Node) error {
	s.p.Turn(n.Volumes...)
	s.dead = append(s.dead, n)
	if d := s.disks[n.Name]; d != nil {
		if err := errors.Join(n.Isolate(), d.CutPower()); err != nil {
			return err
		}
	}
	return n.Die()
}

// writable fails the test unless all volumes take a write, while there is trouble, but for those of dead machines.
func (s *scene) writable() {
	s.Helper()
	errs := make([]error, 0, 8)
	for _, n := range s.Nodes {
		if slices.Contains(s.dead, n) {
			continue
		}
		for _, v := range n.Volumes {
			errs = append(errs, s.probe(v, gateBound))
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.Errorf("%s: %v", s.name, err)
	}
	s.probes.Wait()
}

// probe writes to a volume. It fails after the limit.
func (s *scene) probe(v *volume.Volume, limit time.Duration) error {
	done := make(chan error, 1)
	s.probes.Go(func() { done <- write(filepath.Join(v.Mount, "probe")) })
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("a write to %s doesn't return within %v", v.Mount, limit)
	}
}

func write(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		return err
	}
	return f.Sync()
}
