package cluster

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// An agent that was killed while it coordinated, and is started again, doesn't wait for its own old lease.
func TestOldLeaseEndsWithTheNextProcess(t *testing.T) {
	c := newSimCluster(t, 1)
	lease, err := c.etcd.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	s, err := concurrency.NewSession(c.etcd.Client, concurrency.WithLease(lease.ID))
	if err != nil {
		t.Fatal(err)
	}
	k := newKeys("sim")
	old, err := json.Marshal(Member{Name: "a", Address: "a", Instance: "the killed one"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.etcd.Put(t.Context(), k.node("a"), string(old), clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if err := concurrency.NewElection(s, k.election()).Campaign(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.Orphan() // it is killed
	a := c.coordinator("a")
	a.awaitLead(t)
	all, err := a.member.Members(t.Context())
	if err != nil || len(all) != 1 || all[0].Instance != "" {
		t.Errorf("%+v, %v: the new process is in the list", all, err)
	}
}

// A node whose lease etcd has ended is back at once, and not only when it would renew that.
func TestEndedLeaseIsNoticed(t *testing.T) {
	c := newSimCluster(t, 1)
	var led atomic.Int32
	m := joinFor(3600, c.etcd, "sim", Member{Name: "a", Address: "a"}, func(ctx context.Context, _ Leadership) {
		led.Add(1)
		<-ctx.Done()
	}, quiet())
	t.Cleanup(m.Close)
	for n := range int32(3) {
		eventually(t, "it leads", func() bool { return led.Load() == n+1 })
		all, err := m.Members(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		leases, err := c.etcd.Leases(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leases.Leases {
			if _, err := c.etcd.Revoke(t.Context(), l.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "it is back", func() bool {
		all, err := m.Members(t.Context())
		return err == nil && len(all) == 1
	})
}
