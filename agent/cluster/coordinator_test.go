package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
)

func TestSnapshotIsConsistent(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	stop := c.write()
	defer stop()
	parent := ""
	for i := range 20 {
		rec, err := co.Snapshot(t.Context(), Request{Name: fmt.Sprint("s", i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := c.violations(rec.ID); n > 0 {
			t.Errorf("snapshot %d: %d clients' second change is there without the first", i, n)
		}
		m, err := ParseManifest(rec.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		if m.Parent != parent || m.LongestHold <= 0 || len(m.Topology.Nodes) != 3 || string(m.Metadata["n00"]) == "" || m.ClockOffset["n01"] != 1 {
			t.Errorf("manifest %s", rec.Manifest)
		}
		for _, n := range c.nodes {
			if got := n.signed[rec.ID]; string(got) != string(rec.Manifest) {
				t.Errorf("node %s has stored %q", n.name, got)
			}
		}
		if all, err := c.records.List(t.Context()); err != nil || string(all[i].Manifest) != string(rec.Manifest) {
			t.Errorf("the record has another manifest, %v: %s", err, all[i].Manifest)
		}
		parent = rec.ID
	}
	c.checkOpen()
}

// Without holds the proof of TestSnapshotIsConsistent finds that something is wrong.
func TestProofFindsCutsThatAreApart(t *testing.T) {
	c := newSimCluster(t, 3)
	stop := c.write()
	defer stop()
	eventually(t, "a snapshot without holds is inconsistent", func() bool {
		for _, n := range c.nodes {
			l := &simLocal{simNode: n, id: "x"}
			if err := l.Hold(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return c.violations("x") > 0
	})
}

// failAt makes a node do something at a step, once.
func failAt(n *simNode, step api.PartRequest_Step, do func() error) {
	f := func(s api.PartRequest_Step) error {
		if s != step {
			return nil
		}
		n.at.Store(nil)
		return do()
	}
	n.at.Store(&f)
}

func allSteps() []api.PartRequest_Step {
	return []api.PartRequest_Step{
		api.PartRequest_STEP_PREPARE, api.PartRequest_STEP_READY, api.PartRequest_STEP_HOLD, api.PartRequest_STEP_CUT, api.PartRequest_STEP_CHECK, api.PartRequest_STEP_COMMIT, api.PartRequest_STEP_UNSPECIFIED,
	}
}

// checkWhole fails the test unless the snapshot is everywhere or nowhere.
func (c *simCluster) checkWhole(id string, state string) {
	c.t.Helper()
	there := 0
	for _, n := range c.nodes {
		if s := n.snapshot(id); s != nil && s.state == "complete" {
			there++
		}
	}
	if state == StateComplete && there != len(c.nodes) {
		c.t.Errorf("it is called complete, and %d of %d nodes have it", there, len(c.nodes))
	}
	c.checkOpen()
}

func TestNodeFailsAtEachStep(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	for _, step := range allSteps() {
		failAt(c.nodes[1], step, func() error { return status.Error(codes.Internal, "the disk is gone") })
		rec, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil)
		if step == api.PartRequest_STEP_UNSPECIFIED {
			// The call ended after it was stored: the node is asked.
			if err != nil || rec.State != StateComplete {
				t.Errorf("after the store: %v, %v", rec.State, err)
			}
			c.checkWhole(rec.ID, rec.State)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "n01") {
			t.Errorf("%s: %v", step, err)
		}
		if step < api.PartRequest_STEP_COMMIT && !strings.Contains(err.Error(), "the disk is gone") {
			t.Errorf("%s: the reason is missing: %v", step, err)
		}
		all, err := c.records.List(t.Context())
		if err != nil || all[len(all)-1].State != StateFailed {
			t.Errorf("%s: %+v, %v", step, all[len(all)-1], err)
		}
		c.checkWhole(rec.ID, StateFailed)
	}
}

// A coordinator that dies at any step leaves a whole snapshot or none, to its successor.
func TestCoordinatorDiesAtEachStep(t *testing.T) {
	for _, step := range allSteps() {
		t.Run(step.String(), func(t *testing.T) {
			c := newSimCluster(t, 3)
			a := c.coordinator("a")
			a.awaitLead(t)
			b := c.coordinator("b")
			failAt(c.nodes[2], step, func() error { a.cancel(); return nil })
			_, err := a.Snapshot(t.Context(), Request{Name: "s"}, nil)
			if err == nil {
				t.Fatal("the dead coordinator had success")
			}
			a.close()
			b.awaitLead(t)
			var rec Record
			eventually(t, "the record is final", func() bool {
				all, err := c.records.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				rec = all[0]
				return !rec.Open()
			})
			before := step <= api.PartRequest_STEP_CHECK && step != api.PartRequest_STEP_UNSPECIFIED
			if before && rec.State != StateFailed {
				t.Errorf("undecided, and it is %s", rec.State)
			}
			if left := strings.Contains(err.Error(), "see graphvol cluster snapshots"); left == before {
				t.Errorf("decided: %v, and the error is: %v", !before, err)
			}
			c.checkWhole(rec.ID, rec.State)
			if next, err := b.Snapshot(t.Context(), Request{Name: "next"}, nil); err != nil || next.State != StateComplete {
				t.Errorf("the next one: %s, %v", next.State, err)
			}
		})
	}
}

func TestHoldIsBounded(t *testing.T) {
	c := newSimCluster(t, 2)
	c.set.Hold = 50 * time.Millisecond
	co := c.coordinator("a")
	co.awaitLead(t)
	failAt(c.nodes[1], api.PartRequest_STEP_HOLD, func() error {
		eventually(t, "the other gate is closed", func() bool { return c.nodes[0].closed.Load() == 1 })
		eventually(t, "the other gate has opened by itself", func() bool { return c.nodes[0].closed.Load() == 0 })
		return nil
	})
	if _, err := co.Snapshot(t.Context(), Request{}, nil); err == nil || !strings.Contains(err.Error(), "too late") {
		t.Errorf("a hold that was over: %v", err)
	}
	c.checkOpen()
}

// A coordinator that has lost its election without noticing can't decide anything.
func TestStaleCoordinatorIsFenced(t *testing.T) {
	c := newSimCluster(t, 2)
	a := c.coordinator("a")
	a.awaitLead(t)
	old := a.mu.lead
	a.close()
	b := c.coordinator("b")
	b.awaitLead(t)
	rec := Record{ID: newID(), Name: "s", State: StatePreparing}
	if err := c.records.put(t.Context(), old, &rec, ""); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("a stale write: %v", err)
	}
	if _, err := b.Snapshot(t.Context(), Request{}, nil); err != nil {
		t.Fatal(err)
	}
	// Nodes refuse its orders too.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	all, err := openParts(ctx, ctx, []Member{c.nodes[0].member()}, c.dial)
	if err != nil {
		t.Fatal(err)
	}
	_, err = all.step(ctx, &api.PartRequest{Step: api.PartRequest_STEP_PREPARE, Id: rec.ID, Term: old.Term})
	if status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Errorf("a stale order: %v", err)
	}
}

func TestChangedMetadataIsTriedAgain(t *testing.T) {
	c := newSimCluster(t, 2)
	co := c.coordinator("a")
	co.awaitLead(t)
	failAt(c.nodes[1], api.PartRequest_STEP_CHECK, func() error { return status.Error(codes.Aborted, "the metadata changed from version 7 to 8") })
	rec, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil)
	if err != nil || rec.State != StateComplete {
		t.Fatalf("%s, %v", rec.State, err)
	}
	all, err := c.records.List(t.Context())
	if err != nil || len(all) != 2 || all[0].State != StateFailed || !strings.Contains(all[0].Error, "version 7 to 8") {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestBrokenConnectionIsTriedAgain: a connection that breaks is mostly one of before its node was started anew.
func TestBrokenConnectionIsTriedAgain(t *testing.T) {
	c := newSimCluster(t, 2)
	co := c.coordinator("a")
	co.awaitLead(t)
	failAt(c.nodes[1], api.PartRequest_STEP_PREPARE, func() error {
		return status.Error(codes.Unavailable, "error reading from server: connection timed out")
	})
	if rec, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); err != nil || rec.State != StateComplete {
		t.Fatalf("%s, %v", rec.State, err)
	}
}

func TestNodesMustReadTheSameMetadata(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	none, other := "", `{"version":"8"}`
	c.nodes[0].metadata.Store(&none)
	c.nodes[2].metadata.Store(&other)
	if _, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); err == nil || !strings.Contains(err.Error(), "node n02: its metadata of the graph is another one than that of node n01") {
		t.Errorf("two versions: %v", err)
	}
	c.checkOpen()
	c.nodes[2].metadata.Store(nil)
	if rec, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); err != nil || len(rec.Nodes[0].Metadata) != 0 {
		t.Errorf("one version, which one node doesn't read: %v", err)
	}
}

// Whatever is too long for etcd is refused before any gate is closed, and what isn't is stored.
func TestLongMetadata(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	for length := 40_000; ; length += 40_000 {
		text := fmt.Sprintf(`{"partitions":{"p":[%s"node"]},"version":"7"}`, strings.Repeat(`"node",`, length/7))
		for _, n := range c.nodes {
			n.metadata.Store(&text)
		}
		_, err := co.Snapshot(t.Context(), Request{Name: fmt.Sprint(length)}, nil)
		if err == nil {
			continue
		}
		all, lerr := c.records.List(t.Context())
		if lerr != nil || !strings.Contains(err.Error(), "too long") || length < 80_000 {
			t.Errorf("%d bytes: %v, %v", length, err, lerr)
		}
		for _, r := range all[:len(all)-1] {
			if r.State != StateComplete {
				t.Errorf("%s: %s", r.State, r.Error)
			}
		}
		return
	}
}

func TestRefusals(t *testing.T) {
	c := newSimCluster(t, 2)
	co := c.coordinator("a")
	if _, err := NewCoordinator(co.CoordinatorConfig).Snapshot(t.Context(), Request{}, nil); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("not elected: %v", err)
	}
	co.awaitLead(t)
	if _, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	c.set.Nodes = []string{"n00", "n01", "n99"}
	if _, err := co.Snapshot(t.Context(), Request{}, nil); err == nil || !strings.Contains(err.Error(), "n99 is not in the cluster") {
		t.Errorf("a node that isn't there: %v", err)
	}
	c.set.Nodes, c.set.MaxConcurrent = nil, 1
	block := make(chan struct{})
	failAt(c.nodes[0], api.PartRequest_STEP_UNSPECIFIED, func() error { <-block; return nil })
	if rec, err := co.Snapshot(t.Context(), Request{NoWait: true}, nil); err != nil || rec.State != StateCut {
		t.Fatalf("%s, %v", rec.State, err)
	}
	if _, err := co.Snapshot(t.Context(), Request{}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("one more than may be: %v", err)
	}
	close(block)
	eventually(t, "it is complete", func() bool {
		all, err := c.records.List(t.Context())
		return err == nil && all[len(all)-1].State == StateComplete
	})
}

func TestParseManifestRefuses(t *testing.T) {
	good := Manifest{Format: 1, ID: "x", Name: "s", Topology: Topology{Nodes: []TopologyNode{{Name: "a", Volumes: []TopologyVolume{{Name: "g", Manifest: "m"}}}}}}
	good.Checksum = good.Sum()
	for want, change := range map[string]func(*Manifest){
		"":                     func(*Manifest) {},
		"use a newer one":      func(m *Manifest) { m.Format = 2 },
		"no manifest":          func(m *Manifest) { m.ID = "" },
		"is not that of its p": func(m *Manifest) { m.Topology.Nodes = []TopologyNode{{Name: "b"}} },
	} {
		m := good
		change(&m)
		p, err := json.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(p); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := ParseManifest([]byte("{")); err == nil {
		t.Error("half a manifest was taken")
	}
}

// BenchmarkHold64 is the longest hold of a snapshot over 64 nodes in one process, all of which write.
func BenchmarkHold64(b *testing.B) {
	c := newSimCluster(b, 64)
	co := c.coordinator("a")
	co.awaitLead(b)
	defer c.write()()
	var longest time.Duration
	for b.Loop() {
		rec, err := co.Snapshot(b.Context(), Request{Name: newID()}, nil)
		if err != nil {
			b.Fatal(err)
		}
		longest = max(longest, rec.Hold)
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms-longest-hold")
}

// A name that is made from the time is never taken, though clocks are put back; one that was asked for is refused.
func TestNamesThatAreTaken(t *testing.T) {
	c := newSimCluster(t, 1)
	co := c.coordinator("a")
	co.awaitLead(t)
	for _, name := range []string{"s", "s-2"} {
		if _, err := co.Snapshot(t.Context(), Request{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"s": "s-3", "s-2": "s-2-2", "s-3": "s-3"} {
		made := &taking{Coordinator: co.Coordinator, unnamed: true, rec: Record{Name: name}}
		if err := made.checkName(t.Context()); err != nil || made.rec.Name != want {
			t.Errorf("%s becomes %s, %v", name, made.rec.Name, err)
		}
		asked := &taking{Coordinator: co.Coordinator, rec: Record{Name: name}}
		if err := asked.checkName(t.Context()); errors.Is(err, ErrExists) != (want != name) || asked.rec.Name != name {
			t.Errorf("%s is %s, %v", name, asked.rec.Name, err)
		}
	}
}
