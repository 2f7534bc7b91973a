package cluster

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
)

// A schedule that fails each time doesn't fill etcd, and takes nothing away that is complete.
func TestOldFailuresAreForgotten(t *testing.T) {
	c := newSimCluster(t, 2)
	co := c.coordinator("a")
	co.awaitLead(t)
	if _, err := co.Snapshot(t.Context(), Request{Name: "kept"}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range keptFailed + 20 {
		failAt(c.nodes[1], api.PartRequest_STEP_PREPARE, func() error { return status.Error(codes.Internal, "no room") })
		if _, err := co.Snapshot(t.Context(), Request{Name: fmt.Sprint("s", i)}, nil); err == nil {
			t.Fatal("it was taken")
		}
	}
	eventually(t, "the oldest are gone", func() bool {
		all, err := c.records.List(t.Context())
		return err == nil && len(all) == keptFailed+1 && all[0].Name == "kept" && all[1].Name == "s20"
	})
}
