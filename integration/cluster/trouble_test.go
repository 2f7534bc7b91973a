package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trouble is one thing that is done to a cluster.
type trouble struct {
	name  string
	lasts time.Duration // until it is mended, unless the snapshot has ended before
	do    func(*scene) error
	ends  bool // a snapshot that isn't decided yet
}

const (
	// short is less than what it takes to call a node dead, long more.
	short = 2 * time.Second
	long  = 20 * time.Second
)

// troubles are all kinds. Each happens to the coordinator, to another node, or to the way between them.
func troubles() []trouble {
	return append(deaths(), []trouble{
		{"kill the coordinator", short, func(s *scene) error { s.co.Kill(); return nil }, false},
		{"kill the coordinator for long", long, func(s *scene) error { s.co.Kill(); return nil }, false},
		{"kill a node's agent", short, func(s *scene) error { s.x.Kill(); return nil }, true},
		{"pause the coordinator", short, func(s *scene) error { return s.co.Signal(unix.SIGSTOP) }, false},
		{"pause the coordinator for long", long, func(s *scene) error { return s.co.Signal(unix.SIGSTOP) }, false},
		{"pause a node's agent", short, func(s *scene) error { return s.x.Signal(unix.SIGSTOP) }, false},
		{"pause a node's agent for long", long, func(s *scene) error { return s.x.Signal(unix.SIGSTOP) }, false},
		{"kill a volume's server", short, func(s *scene) error { return s.killServer(s.x) }, true},
		{"kill the server of a volume of the coordinator's", short, func(s *scene) error { return s.killServer(s.co) }, false}, // its node has checked it already
		{"pause a volume's server", short, (*scene).pauseServer, false},
		{"freeze the disk of a volume of each node", short, (*scene).freeze, false},
		{"cut the coordinator off", short, func(s *scene) error { return s.co.Isolate() }, false},
		{"cut the coordinator off for long", long, func(s *scene) error { return s.co.Isolate() }, false},
		{"cut a node off", short, func(s *scene) error { return s.x.Isolate() }, false},
		{"cut a node off for long", long, func(s *scene) error { return s.x.Isolate() }, false},
		{"lose what the coordinator sends to a node", long, func(s *scene) error { return s.Net.Drop(s.co.number, s.x.number) }, false},
		{"lose what a node sends to the coordinator", long, func(s *scene) error { return s.Net.Drop(s.x.number, s.co.number) }, false},
		{"kill the majority of etcd", short, func(s *scene) error { s.x.Kill(); s.y.Kill(); return nil }, false},
		{"cut all nodes off", short, func(s *scene) error {
			for _, n := range s.Nodes {
				if err := n.Isolate(); err != nil {
					return err
				}
			}
			return nil
		}, false},
	}...)
}

// deaths are those of whole machines.
func deaths() []trouble {
	return []trouble{
		{"a node's machine dies", short, func(s *scene) error { return s.die(s.x) }, true},
		{"the coordinator's machine dies", short, func(s *scene) error { return s.die(s.co) }, false},
		{"the coordinator's machine is dead for long", long, func(s *scene) error {
			s.until = time.Now().Add(long)
			return s.die(s.co)
		}, false},
		{"all machines die", short, func(s *scene) error { return errors.Join(s.die(s.co), s.die(s.x), s.die(s.y)) }, false},
	}
}

// moment is a step of a snapshot.
type moment struct {
	name  string
	arm   func(*scene)      // before the snapshot is asked for
	await func(*scene) bool // tells whether the moment has come
	pass  func(*scene)      // lets the snapshot go on
	first bool              // it comes before the decision
}

func moments() []moment {
	return []moment{
		{"preparing", func(s *scene) { s.hook(s.x).arm(0) }, func(s *scene) bool { return s.hook(s.x).reached(0) }, func(s *scene) { s.hook(s.x).pass(0) }, true},
		{"holding", (*scene).armHold, (*scene).awaitHold, func(s *scene) { s.y.Signal(unix.SIGCONT) }, true},
		{"cut, and not decided", func(s *scene) { s.hook(s.x).arm(1) }, func(s *scene) bool { return s.hook(s.x).reached(1) }, func(s *scene) { s.hook(s.x).pass(1) }, true},
		{"storing", (*scene).fill, (*scene).decided, func(*scene) {}, false},
	}
}

// hook is a program that tells what a graph is, and can be made to wait. A snapshot calls it twice: while it is prepared, and after the cut.
type hook struct{ dir string }

// metadata is for Options.Extra.
func metadata(n *Node) (string, error) {
	h := hookOf(n)
	path := h.path("metadata")
	const text = `#!/bin/sh
cd "${0%/*}"
n=$(cat read); echo $((n + 1)) > read
while [ -e block$n ]; do : > blocked$n; sleep 0.02; done
echo '{"version": "1"}'
`
	err := errors.Join(os.MkdirAll(h.dir, 0o755), os.WriteFile(path, []byte(text), 0o755), os.WriteFile(h.path("read"), []byte("9\n"), 0o644))
	return fmt.Sprintf("metadata: {command: [%s], timeout: 30s}\n", path), err
}

// arm has the nth call from now on wait.
func (h hook) arm(n int) {
	os.Remove(h.path("blocked", n))
	os.WriteFile(h.path("block", n), nil, 0o644)
	os.WriteFile(h.path("read"), []byte("0\n"), 0o644)
}

func (h hook) reached(n int) bool {
	_, err := os.Stat(h.path("blocked", n))
	return err == nil
}

func (h hook) pass(n int) { os.Remove(h.path("block", n)) }

func (h hook) path(what string, n ...any) string { return filepath.Join(h.dir, what+fmt.Sprint(n...)) }

// hookOf is a node's. Its files are on no disk of the node's: what the test asks of it outlives a power cut.
func hookOf(n *Node) hook { return hook{filepath.Join(n.cluster.Dir, "hook-"+n.Name)} }

func (s *scene) hook(n *Node) hook { return hookOf(n) }

// armHold has the snapshot stop while some gates are closed: when all are prepared but one, another node's agent is paused. (Not a server: programs can't be started by a process
// with files open on its volume, as their copies are flushed.)
func (s *scene) armHold() {
	s.hook(s.x).arm(0)
	s.before, s.prepared = s.flushes(s.y), 0
}

func (s *scene) awaitHold() bool {
	if !s.hook(s.x).reached(0) || s.flushes(s.y) < s.before+len(s.y.Volumes) {
		return false
	}
	if s.prepared++; s.prepared < 10 { // its agent still has to say so
		return false
	}
	if err := s.y.Signal(unix.SIGSTOP); err != nil {
		s.Fatal(err)
	}
	s.hook(s.x).pass(0)
	for begun := time.Now(); !s.ended(); {
		if s.probe(s.co.Volumes[0], 200*time.Millisecond) != nil {
			return true
		}
		if time.Since(begun) > short {
			s.Logf("%s: it was paused when its volumes were prepared, and nobody knows that", s.y.Name)
			return true
		}
	}
	return false
}

// flushes tells how often a node's volumes have been prepared, as their servers log it.
func (s *scene) flushes(n *Node) (count int) {
	for _, v := range n.Volumes {
		raw, err := os.ReadFile(filepath.Join(v.StateDir(), "log", "agent.log"))
		if err != nil {
			s.Fatal(err)
		}
		count += strings.Count(string(raw), `"flushed for a snapshot"`)
	}
	return count
}

// fill gives the volumes something to store.
func (s *scene) fill() {
	p := make([]byte, 16<<20)
	for _, v := range s.volumes() {
		for i := range p {
			p[i] = byte(s.rng.Uint32())
		}
		if err := os.WriteFile(filepath.Join(v.Mount, "filling"), p, 0o644); err != nil {
			s.Fatal(err)
		}
	}
}

// decided tells whether the snapshot is cut.
func (s *scene) decided() bool {
	rows, err := s.y.Snapshots(s.Context())
	return err == nil && len(rows) > 0 && rows[len(rows)-1].Name == s.name && rows[len(rows)-1].State == "cut"
}

func (s *scene) killServer(n *Node) error { return unix.Kill(s.servers[n][0], unix.SIGKILL) }

// pauseServer pauses a server for a while, and ends that by itself: this process has files open on its volume, so it can't start a program meanwhile.
func (s *scene) pauseServer() error {
	pid := s.servers[s.x][0]
	time.AfterFunc(short, func() { unix.Kill(pid, unix.SIGCONT) })
	return unix.Kill(pid, unix.SIGSTOP)
}

// freeze has the disk of the volumes that aren't cached stand still for a while, as pauseServer does with a server.
func (s *scene) freeze() error {
	const fifreeze, fithaw = 0xc0045877, 0xc0045878
	disk, err := os.Open(filepath.Dir(s.x.Volumes[1].Backing))
	if err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(disk.Fd()), fifreeze, 0); err != nil {
		return errors.Join(fmt.Errorf("FIFREEZE: %w", err), disk.Close())
	}
	time.AfterFunc(short, func() {
		if err := unix.IoctlSetInt(int(disk.Fd()), fithaw, 0); err != nil {
			s.Errorf("FITHAW: %v", err)
		}
		disk.Close()
	})
	return nil
}
