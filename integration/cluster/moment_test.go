package cluster

import (
	"context"
	"fmt"
	"testing"

	"graphvol/integration/volume"
)

// both are volumes in both cache modes.
func both() []Volume {
	return []Volume{{Name: "back", Cache: "writeback"}, {Name: "through", Cache: "through"}}
}

// TestOneMoment: snapshots over three nodes are of one moment, while clients write on and agents die.
func TestOneMoment(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: network(t, 3), Volumes: both()})
	p := c.pairs()
	var rows []Row
	for i := range 5 {
		rows = append(rows, c.take(p, c.Nodes[i%3], fmt.Sprintf("s%d", i)))
	}
	c.proof(p)
	rows = append(rows,
		c.killed(p),
		c.newCoordinator(p, "after-killed-coordinator", (*Node).Kill),
		c.newCoordinator(p, "after-stopped-coordinator", func(n *Node) {
			if err := n.Stop(); err != nil {
				t.Error(err)
			}
		}))
	c.checkWhole(rows...)
}

// TestLoopback: agents on one machine, without namespaces.
func TestLoopback(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: Loopback(), Volumes: both()})
	c.checkWhole(c.take(c.pairs(), c.Nodes[1], "one"))
}

// take takes a snapshot of the cluster by a node, and looks at the order of what it has.
func (t *test) take(p *Pairs, by *Node, name string) Row {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	mark := p.Mark()
	row, err := by.Snapshot(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	t.checkTaken(p, mark, row, name)
	return row
}

func (t *test) checkTaken(p *Pairs, mark []uint64, row Row, name string) {
	t.Helper()
	if row.State != "complete" || row.Name != name || row.HoldMS <= 0 {
		t.Errorf("%+v", row)
	}
	found := p.Check(mark, InSnapshot(name))
	if err := found.Err(); err != nil {
		t.Error(err)
	}
}

// checkWhole fails the test unless all volumes have their parts of complete snapshots, as the rows tell.
func (t *test) checkWhole(rows ...Row) {
	t.Helper()
	known := make(map[string]volume.Snapshot) // by the path of the volume and their id
	for _, v := range t.volumes() {
		all, err := v.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			known[v.Mount+s.ID] = s
		}
	}
	for _, row := range rows {
		if len(row.Nodes) != len(t.Nodes) {
			t.Errorf("%s has %d nodes, want %d", row.Name, len(row.Nodes), len(t.Nodes))
			continue
		}
		for i, n := range t.Nodes {
			t.checkPart(n, row.Name, row.Nodes[i], known)
		}
		t.checkManifest(row)
	}
}

func (t *test) checkPart(n *Node, name string, got NodePart, known map[string]volume.Snapshot) {
	t.Helper()
	if got.Node != n.Name || len(got.Volumes) != len(n.Volumes) {
		t.Errorf("%s: the part of %s is %+v", name, n.Name, got)
		return
	}
	for j, v := range n.Volumes {
		part := got.Volumes[j]
		s := known[v.Mount+part.Snapshot]
		if s.Name != name || s.State != "complete" || s.Checksum == "" || s.Checksum != part.Checksum || part.State != "complete" {
			t.Errorf("%s on %s: the cluster tells %+v, the volume %+v", name, v.Mount, part, s)
		}
	}
}

// proof shows that the pairs tell snapshots of one moment from others: snapshots of the volumes, one after the other, are out of order.
func (t *test) proof(p *Pairs) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	mark := p.Mark()
	for _, v := range t.volumes() {
		if _, err := v.Snapshot(ctx, "apart"); err != nil {
			t.Fatal(err)
		}
	}
	if found := p.Check(mark, InSnapshot("apart")); len(found.Ahead) == 0 {
		t.Error("snapshots taken one after the other look as if they were of one moment")
	}
}

// killed kills the agent of a node that doesn't coordinate: its volumes stay, the clients notice nothing, and the next agent finds everything.
func (t *test) killed(p *Pairs) Row {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	n := t.other(ctx)
	before := t.pids(ctx, n)
	n.Kill()
	t.progress(p)
	_, err := n.Snapshot(ctx, "without-agent")
	t.oneLine(err, "no agent answers at")
	_, err = t.Nodes[(n.number+1)%3].Snapshot(ctx, "without-node")
	t.oneLine(err, "node "+n.Name)
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if after := t.pids(ctx, n); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("servers and holders of %s before and after its agent was killed: %v, %v", n.Name, before, after)
	}
	return t.take(p, n, "after-kill")
}

// other is a node that doesn't coordinate.
func (t *test) other(ctx context.Context) *Node {
	t.Helper()
	co, err := t.Coordinator(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return t.Nodes[(co.number+1)%len(t.Nodes)]
}

// pids are those of the volumes' servers and holders.
func (t *test) pids(ctx context.Context, n *Node) (pids []int) {
	t.Helper()
	for _, v := range n.Volumes {
		st, err := v.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, st.ServerPID, st.HolderPID)
	}
	return pids
}

// progress waits until the clients have gone on.
func (t *test) progress(p *Pairs) {
	t.Helper()
	was := p.Rounds()
	t.eventually("the clients go on", func(context.Context) bool { return p.Rounds() > was+100 })
}

// newCoordinator ends the coordinator's agent by a signal, and starts it again. Another one is in its place by then, without a wait for the old one's lease.
func (t *test) newCoordinator(p *Pairs, name string, end func(*Node)) Row {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	old, err := t.Coordinator(ctx)
	if err != nil {
		t.Fatal(err)
	}
	by := t.other(ctx)
	end(old)
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.eventually("another node coordinates", func(ctx context.Context) bool {
		st, err := by.Status(ctx)
		return err == nil && st.Coordinator != "" && st.Coordinator != old.Name
	})
	return t.take(p, old, name)
}
