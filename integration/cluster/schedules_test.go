package cluster

import (
	"context"
	"flag"
	"fmt"
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
			s.volume = "    schedule: \"* * * * *\"\n    keep: {last: 1}\n" + c.withHooks(n)
		}
		c.set(n, s)
	}
	before := ""
	for range 3 {
		before = c.scheduled(b, before)
		c.forgetCalls(b)
	}
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
	alone := fmt.Sprintf("post taken graph  %s", n.Volumes[0].Mount)
	last := ""
	for ctx.Err() == nil {
		rows, err := n.Snapshots(ctx)
		parts := strings.Fields(t.parts(n.Volumes[0]))
		calls := strings.Join(n.calls(), "\n")
		if err == nil && len(rows) == 1 && rows[0].State == "complete" && rows[0].ID != before && len(parts) <= 2 && strings.Contains(calls, alone) {
			return rows[0].ID
		}
		last = fmt.Sprintf("%v, %+v, %q, %s", err, rows, parts, calls)
		time.Sleep(time.Second)
	}
	t.Fatalf("it isn't as scheduled: %s", last)
	return ""
}
