package cluster

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var schedules = flag.Bool("cluster.schedules", false, "schedules, which takes minutes, as they have no less")

// TestSchedules: snapshots of the cluster and of a single volume are taken every minute, with their hooks, and as many are kept as is said.
func TestSchedules(t *testing.T) {
	t.Parallel()
	if !*schedules {
		t.Skip("takes long: -cluster.schedules")
	}
	c := start(t, Options{Net: Loopback(), Extra: copied})
	b := c.Nodes[1]
	for _, n := range c.Nodes {
		s := settings{cluster: "  schedule: \"* * * * *\"\n  keep: {last: 1}\n"}
		if n == b {
			s.volume = "    schedule: \"* * * * *\"\n    keep: {last: 1}\n    prune: \"* * * * *\"\n" + c.withHooks(n)
		}
		c.set(n, s)
	}
	before := ""
	for range 3 {
		before = c.scheduled(b, before)
		c.tracedAlone(b)
		c.forgetCalls(b)
	}
	if log := c.read(b.logPath()); !strings.Contains(log, `"msg":"the space of deleted snapshots is given back"`) {
		t.Errorf("node %s has not pruned its volume", b.Name)
	}
	c.taken(b)
	ctx, cancel := c.bounded()
	defer cancel()
	for _, n := range c.Nodes {
		if p := c.row(ctx, n).Problem; p != "" {
			t.Errorf("node %s: %s", n.Name, p)
		}
	}
}

// scheduled waits until there is another snapshot of the cluster than the one before, and no more than that, and until a node's volume was snapshotted alone. It gives the former's id.
func (t *test) scheduled(n *Node, before string) (id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+patience)
	defer cancel()
	last := ""
	for ctx.Err() == nil {
		rows, err := n.Snapshots(ctx)
		parts := strings.Fields(t.parts(n.Volumes[0]))
		calls := strings.Join(n.calls(), "\n")
		if err == nil && len(rows) == 1 && rows[0].State == "complete" && rows[0].ID != before && len(parts) == 2 && t.hooked(n, parts, rows[0].Name) {
			return rows[0].ID
		}
		last = fmt.Sprintf("%v, %+v, %q, %s", err, rows, parts, calls)
		time.Sleep(time.Second)
	}
	t.Fatalf("it isn't as scheduled: %s", last)
	return ""
}

// hooked tells whether the hooks of a node's volume have run around the snapshots of its own, and were told their names.
func (t *test) hooked(n *Node, snapshots []string, ofCluster string) bool {
	calls := n.calls()
	for _, name := range snapshots {
		if name != ofCluster && (!slices.Contains(calls, n.call("pre", "", name)) || !slices.Contains(calls, n.call("post", "taken", name))) {
			return false
		}
	}
	return true
}

// tracedAlone: what a node's schedule has begun is a trace as well. The hook of a volume's own snapshot and the storing of that have its id.
func (t *test) tracedAlone(n *Node) {
	t.Helper()
	traces := 0
	for _, l := range logLines(volumeLog(n.Volumes[0])) {
		if l.Msg != "the snapshot is taken" || !slices.Contains(n.calls(), n.call("post", "taken", l.Name)) || strings.Contains(l.Name, ".") {
			continue
		}
		traces++
		t.logged(volumeLog(n.Volumes[0]), l.Trace, "the snapshot is complete")
		t.logged(n.logPath(), l.Trace, "a hook has run")
	}
	if traces == 0 {
		t.Errorf("node %s has taken no snapshot of its volume alone", n.Name)
	}
}

// taken: names that a node's schedule would give are taken, as after a clock was put back. Others are found, of which the hooks are told.
func (t *test) taken(n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+patience)
	defer cancel()
	v := n.Volumes[0]
	minute := time.Now().UTC().Truncate(time.Minute)
	var names []string
	for i := 1; i <= 2; i++ {
		for s := range 5 {
			name := minute.Add(time.Duration(i)*time.Minute + time.Duration(s)*time.Second).Format("2006-01-02T15-04-05Z")
			if _, err := v.Snapshot(ctx, name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if _, err := v.Run(ctx, append([]string{"keep", v.Mount}, names...)...); err != nil {
			t.Fatal(err)
		}
	}
	for ctx.Err() == nil {
		for _, name := range names {
			calls := n.calls()
			if slices.Contains(calls, n.call("post", "failed", name)) && slices.Contains(calls, n.call("pre", "", name+"-2")) && slices.Contains(calls, n.call("post", "taken", name+"-2")) {
				return
			}
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("no snapshot has got another name than one of %q: %q", names, n.calls())
}
