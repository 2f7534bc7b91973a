package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var members = flag.Bool("cluster.members", false, "nodes that are lost without a copy, added and removed, which takes minutes")

// TestReplacedNode: a machine is lost for good, and a new one with its name takes its place: the volume comes from its copy, and with it its parts of the cluster's snapshots.
// Clients of the other nodes see nothing of it.
func TestReplacedNode(t *testing.T) {
	t.Parallel()
	copyOfC := func(n *Node) (string, error) {
		if n.Name != "c" {
			return "", nil
		}
		return fmt.Sprintf("    copies:\n      - targets: [\"dir:%s\"]\n", n.dir("copy")), os.MkdirAll(n.dir("copy"), 0o700)
	}
	tc := start(t, Options{Net: Loopback(), Extra: copyOfC})
	ctx, cancel := tc.bounded()
	defer cancel()
	a, c := tc.Nodes[0], tc.Nodes[2]
	v := c.Volumes[0]
	p := tc.pairsOn(tc.Nodes[:2])
	content := rig.WriteFile(t, filepath.Join(v.Mount, "data"), 300_000)
	tc.snapshot("before")
	if _, err := v.Run(ctx, "sync", "--wait", v.Mount); err != nil {
		t.Fatal(err)
	}
	if err := tc.Burn(c); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(v.Backing); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"attach", "--config", c.Config, v.Mount, v.StateDir()}, {"restore", v.StateDir(), "latest", v.Backing}} {
		if _, err := v.Run(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	tc.notListed(c)
	tc.runOn(a, "member", "remove", "c")
	tc.runOn(a, "member", "add", "c", c.EtcdURL())
	if err := tc.Start(ctx); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.Mount, "data"), content)
	tc.vote("a", "b", "c")
	tc.found(false, "")
	if states, errs := tc.records("before"); fmt.Sprint(states) != "[complete]" {
		t.Errorf("%v: %s", states, errs)
	}
	if row := tc.take(p, a, "after"); len(row.Nodes) != 3 || tc.parts(v) != "before after" {
		t.Errorf("c has %s: %+v", tc.parts(v), row)
	}
}

// TestMembers: a node is lost with all it had, one more is added, and taken out again.
func TestMembers(t *testing.T) {
	t.Parallel()
	if !*members {
		t.Skip("takes long: -cluster.members")
	}
	c := start(t, Options{Net: Loopback(), Extra: copied})
	for _, part := range []struct {
		name string
		run  func(*test)
	}{
		{"lost without a copy", (*test).lostNode},
		{"added", (*test).addedNode},
		{"removed", (*test).removedNode},
		{"back again", (*test).nodeBack},
		{"all lost", (*test).allMembersLost},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(&test{c.Cluster, t}) }) {
			return
		}
	}
}

// runOn runs a command on a node that must succeed.
func (t *test) runOn(n *Node, args ...string) string {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	out, err := n.Run(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// notListed fails the test unless the agent of a node whose data was lost ends, and says which two commands put it back.
func (t *test) notListed(n *Node) {
	t.Helper()
	t.notStarted(fmt.Sprintf("graphvol cluster member remove %s, then graphvol cluster member add %s %s", n.Name, n.Name, n.EtcdURL()), n.Config)
}

// vote waits until exactly these nodes have a vote in etcd, and there is no other member, by the word of each of them.
func (t *test) vote(names ...string) {
	t.Helper()
	want := strings.Join(names, " ")
	t.eventually("these have a vote: "+want, func(ctx context.Context) bool {
		for _, n := range t.Nodes {
			if !strings.Contains(want, n.Name) {
				continue
			}
			list, err := query[struct {
				Members []struct{ Name, State string }
			}](n, ctx, "member", "list")
			got, leaders := "", 0
			for _, m := range list.Members {
				if m.State == "leader" {
					leaders++
				}
				if m.State == "leader" || m.State == "member" {
					got += " " + m.Name
				}
			}
			if err != nil || strings.TrimSpace(got) != want || len(list.Members) != len(names) || leaders != 1 {
				return false
			}
		}
		return true
	})
}

// lostNode: c has no copy. What was of it in snapshots is gone, and nobody says otherwise.
func (t *test) lostNode() {
	ctx, cancel := t.bounded()
	defer cancel()
	a, c := t.Nodes[0], t.Nodes[2]
	t.snapshot("before")
	if err := t.Burn(c); err != nil {
		t.Fatal(err)
	}
	t.notListed(c)
	t.refused(a, 1, "without b there are a, c, of which 2 must answer", "member", "remove", "b")
	t.refused(a, 1, `no such member: "x"; it has a, b, c`, "member", "remove", "x")
	t.refused(a, 1, "graphvol cluster member remove c", "member", "add", "c", c.EtcdURL())
	t.refused(a, 1, "write it as https://HOST:PORT", "member", "add", "d", "d")
	if out := t.runOn(a, "member", "remove", "c"); !strings.Contains(out, "cluster: nodes names c still") || !strings.Contains(out, "etcd has 2 of the three") {
		t.Errorf("it isn't told what is left to do: %s", out)
	}
	t.notStarted("graphvol cluster member add c "+c.EtcdURL(), c.Config)
	if out := t.runOn(t.Nodes[1], "member", "add", "c", c.EtcdURL()); !strings.Contains(out, "listen: "+c.EtcdURL()) {
		t.Errorf("it isn't told what c needs: %s", out)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.vote("a", "b", "c")
	if row := t.snapshot("after"); len(row.Nodes) != 3 {
		t.Errorf("%+v", row)
	}
	t.found(false, `before c graph "its part is not there" "the snapshot is called damaged"`)
	if states, errs := t.records("before"); fmt.Sprint(states) != "[damaged]" || errs != "node c: volume graph: its part is not there\n" {
		t.Errorf("%v: %s", states, errs)
	}
	t.refused(a, 1, "only a complete one can be restored", "restore", "before", t.Dir+"/restored")
	t.runOn(a, "delete", "before")
	if states, _ := t.records("before"); len(states) > 0 || t.parts(a.Volumes[0]) != "after" {
		t.Errorf("what is left of it can't be deleted: %v, a has %s", states, t.parts(a.Volumes[0]))
	}
}

// addedNode: a fourth node.
func (t *test) addedNode() {
	ctx, cancel := t.bounded()
	defer cancel()
	a := t.Nodes[0]
	d, err := t.AddNode(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.notStarted("graphvol cluster member add d "+d.EtcdURL(), d.Config)
	if out := t.runOn(a, "member", "add", "d", d.EtcdURL()); !strings.Contains(out, "cluster: nodes doesn't name d") {
		t.Errorf("it isn't told that snapshots leave d out: %s", out)
	}
	if row := t.snapshot("three"); len(row.Nodes) != 3 {
		t.Errorf("a member that hasn't come counts: %+v", row)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.vote("a", "b", "c", "d")
	for _, n := range t.Nodes {
		t.set(n, settings{})
	}
	if row := t.snapshot("four"); len(row.Nodes) != 4 {
		t.Errorf("%+v", row)
	}
}

// removedNode: d is taken out. Its agent says so, also after another start, and its volume works on.
func (t *test) removedNode() {
	ctx, cancel := t.bounded()
	defer cancel()
	a, d := t.Nodes[0], t.Nodes[3]
	v := d.Volumes[0]
	content := rig.WriteFile(t, filepath.Join(v.Mount, "data"), 100_000)
	out := t.runOn(a, "member", "remove", "d")
	for _, want := range []string{"cluster: nodes names d still", "graphvol cluster config set --node d --remove"} {
		if !strings.Contains(out, want) {
			t.Errorf("it isn't told what is left to do, %q: %s", want, out)
		}
	}
	t.vote("a", "b", "c")
	t.refused(a, 1, "d", "snapshot") // which needs it still
	gone := func() {
		t.Helper()
		t.eventually("d says that it was removed", func(ctx context.Context) bool {
			_, err := d.Status(ctx)
			return err != nil && strings.Contains(err.Error(), "was removed")
		})
		t.refused(d, 1, "graphvol cluster member add d "+d.EtcdURL()+"; then restart this agent", "status")
		t.refused(d, 1, "was removed", "snapshots")
		t.refused(d, 1, "was removed", "member", "list")
		rig.SameFile(t, filepath.Join(v.Mount, "data"), content)
		content = rig.WriteFile(t, filepath.Join(v.Mount, "data"), 100_001)
		if _, err := v.Snapshot(ctx, ""); err != nil {
			t.Error(err)
		}
	}
	gone()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if !volume.Mounted(v.Mount) {
		t.Error("its volume was unmounted")
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	gone()
	t.Nodes = t.Nodes[:3]
	for _, n := range t.Nodes {
		t.set(n, settings{})
	}
	if err := t.Whole(ctx); err != nil { // nobody lists d any more
		t.Error(err)
	}
	if row := t.snapshot("three-again"); len(row.Nodes) != 3 {
		t.Errorf("%+v", row)
	}
	if _, err := a.Run(ctx, "delete", "four"); err != nil {
		t.Errorf("a snapshot waits for a node that doesn't come back: %v", err)
	}
	if states, _ := t.records("four"); len(states) > 0 {
		t.Errorf("a snapshot waits for a node that doesn't come back: %v", states)
	}
	t.Nodes = append(t.Nodes, d)
}

// nodeBack: d is added again, and its agent has its old data still.
func (t *test) nodeBack() {
	ctx, cancel := t.bounded()
	defer cancel()
	a, d := t.Nodes[0], t.Nodes[3]
	t.runOn(a, "member", "add", "d", d.EtcdURL())
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.vote("a", "b", "c", "d")
	t.runOn(t.Nodes[1], "member", "remove", "d")
	t.vote("a", "b", "c")
}

// allMembersLost: etcd begins anew with the nodes of the configurations, also with one that wasn't there when it first began.
func (t *test) allMembersLost() {
	ctx, cancel := t.bounded()
	defer cancel()
	for _, n := range t.Nodes {
		n.Kill()
		if err := os.RemoveAll(filepath.Join(n.State, "etcd")); err != nil {
			t.Fatal(err)
		}
		if err := t.writeConfig(n); err != nil { // now all name all
			t.Fatal(err)
		}
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.vote("a", "b", "c", "d")
	t.runOn(t.Nodes[0], "config", "restore")
	for _, n := range t.Nodes {
		t.eventually("node "+n.Name+" runs what was put back", func(ctx context.Context) bool {
			config := t.row(ctx, n).Config
			return strings.HasPrefix(config, "revision ") && !strings.Contains(config, "lost")
		})
	}
}
