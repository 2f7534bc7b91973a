package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"graphvol/agent/config"
	"graphvol/internal/freeport"
)

// machine is a node that has an etcd, and nothing else.
type machine struct {
	name, state, url string
	members          map[string]string
	etcd             *Etcd // nil: it doesn't run
	tended           sync.WaitGroup
	stop             context.CancelFunc
}

func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{name: name, state: filepath.Join(t.TempDir(), "s"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	t.Cleanup(func() { m.end(t) })
	return m
}

// three are machines whose etcd is there when it returns.
func three(t *testing.T) []*machine {
	t.Helper()
	all := []*machine{newMachine(t, "a"), newMachine(t, "b"), newMachine(t, "c")}
	members := make(map[string]string)
	for _, m := range all {
		members[m.name] = m.url
	}
	for _, m := range all {
		m.members = members
		m.start(t)
	}
	for _, m := range all {
		m.await(t)
	}
	return all
}

func (m *machine) open() (*Etcd, error) {
	return OpenEtcd(m.name, m.state, config.Etcd{Listen: m.url, Members: m.members}, nil)
}

func (m *machine) start(t *testing.T) {
	t.Helper()
	var err error
	if m.etcd, err = m.open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	etcd := m.etcd
	m.tended.Go(func() { etcd.Tend(ctx, quiet()) })
}

// notStarted fails the test unless the machine's etcd refuses to start with some words.
func (m *machine) notStarted(t *testing.T, want ...string) {
	t.Helper()
	etcd, err := m.open()
	if err == nil {
		etcd.Close()
		t.Fatalf("the etcd of %s starts, want %q", m.name, want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v, want %q", err, w)
		}
	}
}

func (m *machine) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.etcd.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) end(t *testing.T) {
	t.Helper()
	if m.etcd == nil {
		return
	}
	m.stop()
	m.tended.Wait()
	if err := m.etcd.Close(); err != nil {
		t.Error(err)
	}
	m.etcd = nil
}

// burn ends the machine's etcd and removes all it had.
func (m *machine) burn(t *testing.T) {
	t.Helper()
	m.end(t)
	if err := os.RemoveAll(m.state); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) known() *EtcdMembers { return NewEtcdMembers(m.etcd, "") }

// states gives the members' states by their names, as a machine knows them; both voting states are "voter".
func (m *machine) states(t *testing.T) string {
	t.Helper()
	all, err := m.known().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		if e.State == EtcdLeader || e.State == EtcdVoter {
			e.State = "voter"
		}
		out = append(out, e.reference()+" "+e.State)
	}
	return strings.Join(out, ", ")
}

func (m *machine) eventually(t *testing.T, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = m.states(t); got == want {
			return
		}
	}
	t.Fatalf("%s lists %q, want %q", m.name, got, want)
}

// refused fails the test unless err is of a kind and has some words.
func refused(t *testing.T, err, kind error, want string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %v, %q", err, kind, want)
	}
}

// A member whose data is lost comes back after it was removed and added; one more is added; and what would cost the majority is refused.
func TestEtcdMembers(t *testing.T) {
	t.Parallel()
	all := three(t)
	a, b, c := all[0], all[1], all[2]
	ctx := t.Context()
	if _, err := a.etcd.Put(ctx, "/kept", "1"); err != nil {
		t.Fatal(err)
	}
	a.eventually(t, "a voter, b voter, c voter")
	c.burn(t)
	c.notStarted(t, "graphvol cluster member remove c, then graphvol cluster member add c "+c.url)
	_, err := a.known().Add(ctx, "c", c.url)
	refused(t, err, ErrEtcdMember, "graphvol cluster member remove c")
	_, err = a.known().Remove(ctx, "x")
	refused(t, err, ErrNoEtcdMember, "a, b, c")
	_, err = a.known().Remove(ctx, "b") // a would be alone with c, which is lost
	refused(t, err, ErrQuorum, "without b there are a, c, of which 2 must answer")
	if _, err := a.known().Remove(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	a.eventually(t, "a voter, b voter")
	c.notStarted(t, "graphvol cluster member add c "+c.url)
	gone := func(names string) {
		t.Helper()
		for _, name := range []string{"a", "b", "c", "x"} {
			if got := a.known().Gone(ctx, name); got != strings.Contains(names, name) {
				t.Errorf("%s is gone: %v", name, got)
			}
		}
	}
	gone("c") // not b, of which it was refused
	if _, err := a.known().Add(ctx, "c", c.url); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, "a voter, b voter, c not started")
	gone("")
	_, err = b.known().Add(ctx, "d", "http://127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "added before") {
		t.Errorf("a second one is added before the first has come: %v", err)
	}
	c.start(t)
	c.await(t)
	c.eventually(t, "a voter, b voter, c voter")
	if res, err := c.etcd.Get(ctx, "/kept"); err != nil || len(res.Kvs) != 1 {
		t.Errorf("the new member lacks what the others have: %v, %v", err, res)
	}
}

// A member that was removed says so, at its next start too, and comes back when it was added again.
func TestEtcdRemoved(t *testing.T) {
	t.Parallel()
	all := three(t)
	a, b := all[0], all[1]
	ctx := t.Context()
	a.eventually(t, "a voter, b voter, c voter")
	if _, err := b.known().Remove(ctx, "b"); err != nil { // by its own word
		t.Fatal(err)
	}
	gone := func() {
		t.Helper()
		select {
		case <-b.etcd.own.Server.StopNotify():
		case <-time.After(30 * time.Second):
			t.Fatal("the removed member runs on")
		}
		refused(t, b.etcd.Removed(), ErrRemoved, "graphvol cluster member add b "+b.url+"; then restart this agent")
		_, err := b.known().List(ctx)
		refused(t, err, ErrRemoved, "")
		b.tended.Wait()
	}
	gone()
	b.end(t)
	b.start(t)
	gone()
	if _, err := a.known().Add(ctx, "b", b.url); err != nil {
		t.Fatal(err)
	}
	b.end(t)
	b.start(t)
	b.await(t)
	b.eventually(t, "a voter, b voter, c voter")
	if err := b.etcd.Removed(); err != nil {
		t.Error(err)
	}
	b.end(t)
	for _, change := range []func() (EtcdMember, error){
		func() (EtcdMember, error) { return a.known().Remove(ctx, "b") }, func() (EtcdMember, error) { return a.known().Add(ctx, "b", b.url) },
	} {
		if _, err := change(); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t) // it learns only now that it isn't the member that it was
	gone()
	b.end(t)
	b.start(t)
	b.await(t)
	b.eventually(t, "a voter, b voter, c voter")
	b.end(t) // and it isn't set aside again
	b.start(t)
	b.await(t)
	b.eventually(t, "a voter, b voter, c voter")
}

// A cluster of one node grows when that has an address, and its last member stays.
func TestEtcdOfOneGrows(t *testing.T) {
	t.Parallel()
	a, b := newMachine(t, "a"), newMachine(t, "b")
	ctx := t.Context()
	url := a.url
	a.url = ""
	a.start(t)
	a.await(t)
	_, err := a.known().Remove(ctx, "a")
	refused(t, err, ErrQuorum, "the last member")
	if _, err := a.known().Add(ctx, "b", b.url); err == nil || !strings.Contains(err.Error(), "etcd: listen") {
		t.Errorf("it has no address for others: %v", err)
	}
	a.end(t)
	a.url = url
	a.start(t)
	b.members = map[string]string{"a": a.url, "b": b.url}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err = a.known().Add(ctx, "b", b.url); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	b.start(t)
	b.await(t)
	b.eventually(t, "a voter, b voter")
	if _, err := a.known().Remove(ctx, "a"); err != nil { // the leader of two, by its own word
		t.Error(err)
	}
	b.eventually(t, "b voter")
	if _, err := b.known().list(ctx); err != nil { // it waits until b leads
		t.Error(err)
	}
	if _, err := b.etcd.Put(ctx, "/more", "1"); err != nil {
		t.Errorf("who is left can't go on alone: %v", err)
	}
}

// A machine that has another address, and says so in its configuration alone, tells the others.
func TestEtcdMemberMoves(t *testing.T) {
	t.Parallel()
	all := three(t)
	a, c := all[0], all[2]
	a.eventually(t, "a voter, b voter, c voter")
	c.end(t)
	moved := newMachine(t, "c")
	moved.state, moved.members = c.state, map[string]string{"a": a.url, "b": all[1].url, "c": moved.url}
	moved.start(t)
	moved.await(t)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		known, err := a.known().List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if known[2].URL == moved.url {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a knows %+v, and c is at %s now", known, moved.url)
		}
	}
}

// A node without data that reaches none of the others doesn't begin anew: the cluster may be there.
func TestEtcdAlone(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m := newMachine(t, "a")
	m.members = map[string]string{"a": m.url, "b": "http://" + ln.Addr().String(), "c": "http://" + ln.Addr().String()}
	m.notStarted(t, "can't find out")
}
