package cluster

import (
	"strings"
	"testing"
)

func (c *simCluster) states() string {
	c.t.Helper()
	all, err := c.records.List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, r := range all {
		out = append(out, r.Name+":"+r.State)
	}
	return strings.Join(out, " ")
}

func TestRepair(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	var ids []string
	for _, name := range []string{"one", "two"} {
		rec, err := co.Snapshot(t.Context(), Request{Name: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.ID)
	}
	repair := func(dry bool, problems ...string) {
		t.Helper()
		res, err := co.Repair(t.Context(), dry)
		if err != nil || len(res.Findings) != len(problems) {
			t.Fatalf("%+v, %v, want %q", res, err, problems)
		}
		for i, want := range problems {
			if got := res.Findings[i]; !strings.Contains(got.Problem+": "+got.Done, want) {
				t.Errorf("finding %+v, want %q", got, want)
			}
		}
	}
	repair(false)

	// A volume has lost its part, and it comes back.
	lost := c.nodes[1].snapshots[ids[1]]
	delete(c.nodes[1].snapshots, ids[1])
	repair(true, "its part is not there: the snapshot is called damaged")
	if got := c.states(); got != "one:complete two:complete" {
		t.Errorf("a dry run has changed something: %s", got)
	}
	repair(false, "its part is not there: the snapshot is called damaged")
	if got := c.states(); got != "one:complete two:damaged" {
		t.Errorf("after the loss: %s", got)
	}
	c.nodes[1].snapshots[ids[1]] = lost
	repair(false, "is back: the snapshot is called complete")
	if got := c.states(); got != "one:complete two:complete" {
		t.Errorf("after it came back: %s", got)
	}

	// etcd has lost its records.
	for _, id := range ids {
		if err := c.records.remove(t.Context(), co.mu.lead, id); err != nil {
			t.Fatal(err)
		}
	}
	delete(c.nodes[2].snapshots, ids[0])
	repair(false, "no record of it, and it isn't whole (node n02", "no record of it: it has one again")
	if got := c.states(); got != "two:complete" {
		t.Errorf("after etcd's loss: %s", got)
	}
	all, err := c.records.List(t.Context())
	if err != nil || string(all[0].Manifest) != string(c.nodes[0].signed[ids[1]]) || len(all[0].Nodes) != 3 || all[0].Hold == 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestRepairDecidesNothingOfWhoIsAway(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	rec, err := co.Snapshot(t.Context(), Request{Name: "one"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[2].away.Store(true)
	res, err := co.Repair(t.Context(), false)
	if err != nil || len(res.Findings) != 0 || len(res.Away) != 1 || res.Away[0] != "n02" {
		t.Errorf("%+v, %v", res, err)
	}
	if err := c.records.remove(t.Context(), co.mu.lead, rec.ID); err != nil {
		t.Fatal(err)
	}
	res, err = co.Repair(t.Context(), false)
	if err != nil || len(res.Findings) != 1 || !strings.Contains(res.Findings[0].Problem, "not all its nodes") || c.states() != "" {
		t.Errorf("%+v, %v, %s", res, err, c.states())
	}
}
