package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// patience bounds what has to come true.
const patience = 60 * time.Second

// test is a running cluster, and the test that has it.
type test struct {
	*Cluster
	testing.TB
}

// start makes a cluster and starts it. When the test ends nothing of it is left.
func start(t testing.TB, o Options) *test {
	t.Helper()
	rig.NeedFUSE(t)
	bin, err := rig.Agent()
	if err != nil {
		t.Fatal(err)
	}
	if o.Dir, err = os.MkdirTemp("", "c"); err != nil { // not t.TempDir: a socket's path must be short
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(o.Dir); err != nil {
			t.Error(err)
		}
	})
	o.Bin = bin
	c, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	tc := &test{c, t}
	t.Cleanup(tc.end)
	ctx, cancel := tc.bounded()
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return tc
}

func (t *test) end() {
	if err := t.Close(); err != nil {
		t.Errorf("ending the cluster: %v", err)
	}
	for _, n := range t.Nodes {
		if out := n.Output(); out != "" {
			t.Errorf("the agent of %s said on standard error:\n%s", n.Name, out)
		}
		for _, v := range n.Volumes {
			if report := rig.TakeStderr(v); report != "" {
				t.Errorf("the server of %s or its holder said on standard error:\n%s", v.Mount, report)
			}
		}
	}
	if t.Failed() {
		t.showLogs()
	}
}

// showLogs prints the last lines of the agents' logs.
func (t *test) showLogs() {
	for _, n := range t.Nodes {
		raw, _ := os.ReadFile(n.logPath())
		const most = 6 << 10
		t.Logf("%s:\n%s", n.logPath(), raw[max(0, len(raw)-most):])
	}
}

func (n *Node) logPath() string { return filepath.Join(n.State, "log", "agent.log") }

func (t *test) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), patience)
}

// volumes are those of all nodes.
func (t *test) volumes() (all []*volume.Volume) {
	for _, n := range t.Nodes {
		all = append(all, n.Volumes...)
	}
	return all
}

// pairs starts clients on all volumes; they must see no error until the test ends.
func (t *test) pairs() *Pairs {
	t.Helper()
	return t.pairsOn(t.Nodes)
}

// pairsOn is pairs on the volumes of some nodes.
func (t *test) pairsOn(nodes []*Node) *Pairs {
	t.Helper()
	var all []*volume.Volume
	for _, n := range nodes {
		all = append(all, n.Volumes...)
	}
	p, err := StartPairs(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// eventually waits until ok is true.
func (t *test) eventually(what string, ok func(context.Context) bool) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); !ok(ctx); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v it isn't so: %s", patience, what)
		}
	}
}

// oneLine fails the test unless err is a command's that says in one line what happened.
func (t *test) oneLine(err error, want string) {
	t.Helper()
	if err == nil || strings.Count(strings.TrimSpace(err.Error()), "\n") > 0 || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want one line with %q", err, want)
	}
}
