package cluster

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
)

func TestDelete(t *testing.T) {
	c := newSimCluster(t, 3)
	co := c.coordinator("a")
	co.awaitLead(t)
	var ids []string
	for _, name := range []string{"one", "two", "three"} {
		rec, err := co.Snapshot(t.Context(), Request{Name: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.ID)
	}
	if _, err := co.Delete(t.Context(), []string{"one", "none"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that isn't there: %v", err)
	}
	if _, err := co.Delete(t.Context(), []string{"one", ids[0]}); err != nil {
		t.Fatal(err)
	}
	c.nodes[1].away.Store(true)
	if _, err := co.Delete(t.Context(), []string{"two"}); err == nil || !strings.Contains(err.Error(), "n01") {
		t.Errorf("with a node away: %v", err)
	}
	all, err := c.records.List(t.Context())
	if err != nil || len(all) != 2 || all[0].State != StateDeleting || all[1].State != StateComplete {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := co.Snapshot(t.Context(), Request{Name: "two"}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("its name is free before it is gone: %v", err)
	}
	// Another coordinator goes on with it.
	co.close()
	b := c.coordinator("b")
	b.awaitLead(t)
	c.nodes[1].away.Store(false)
	eventually(t, "it is gone", func() bool {
		all, err := c.records.List(t.Context())
		return err == nil && len(all) == 1
	})
	for _, n := range c.nodes {
		if len(n.snapshots) != 1 || n.snapshots[ids[2]] == nil || len(n.signed) != 1 {
			t.Errorf("%s has %d snapshots and %d manifests", n.name, len(n.snapshots), len(n.signed))
		}
	}
}

func TestDeleteLeavesWhatIsOpen(t *testing.T) {
	c := newSimCluster(t, 2)
	co := c.coordinator("a")
	co.awaitLead(t)
	block := make(chan struct{})
	failAt(c.nodes[0], api.PartRequest_STEP_UNSPECIFIED, func() error { <-block; return status.Error(codes.Internal, "x") })
	if _, err := co.Snapshot(t.Context(), Request{Name: "s", NoWait: true}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := co.Delete(t.Context(), []string{"s"}); !errors.Is(err, ErrOpen) {
		t.Errorf("one that is being stored: %v", err)
	}
	close(block)
}

func TestResolve(t *testing.T) {
	all := []Record{
		{ID: "a1", Name: "daily", State: StateFailed}, {ID: "a2", Name: "daily", State: StateComplete}, {ID: "b1", Name: "da", State: StateComplete},
		{ID: "b2", Name: "other", State: StateFailed},
	}
	for ref, want := range map[string]string{"daily": "a2", "a1": "a1", "da": "b1", "latest": "b1", "oth": "b2", "b2": "b2", "a": "", "": "", "x": ""} {
		r, err := Resolve(all, ref)
		switch {
		case want == "" && !errors.Is(err, ErrNotFound):
			t.Errorf("%q: %v, %v", ref, r, err)
		case want != "" && (err != nil || r.ID != want):
			t.Errorf("%q: %v, %v, want %s", ref, r, err, want)
		}
	}
}
