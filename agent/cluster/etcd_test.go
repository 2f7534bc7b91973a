package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/agent/config"
	"graphvol/internal/freeport"
)

// A state directory in which the agent's socket has room is one in which etcd's has.
func TestEtcdInLongPath(t *testing.T) {
	top, err := os.MkdirTemp("", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	const most, agentSocket = 107, "/agent.sock"
	state := filepath.Join(top, strings.Repeat("x", most-len(agentSocket)-len(top)-1))
	etcd, err := OpenEtcd("one", state, config.Etcd{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := etcd.Close(); err != nil {
		t.Error(err)
	}
}

// An etcd that is there already does as well as the agents' own: here it is one that an agent has opened to others.
func TestEtcdElsewhere(t *testing.T) {
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	there, err := OpenEtcd("one", filepath.Join(t.TempDir(), "state"), config.Etcd{Client: url}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := there.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	c := &simCluster{t: t, set: Settings{Timeout: 20 * time.Second, Hold: 2 * time.Second}}
	if c.etcd, err = OpenEtcd("two", "", config.Etcd{Endpoints: []string{url}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := NewEtcdMembers(c.etcd, "sim").List(ctx); !errors.Is(err, ErrEtcdElsewhere) {
		t.Errorf("its members are changed by its own tool, and the error is %v", err)
	}
	c.records = NewRecords(c.etcd, "sim")
	c.nodes = []*simNode{newSimNode(t, "n00"), newSimNode(t, "n01")}
	co := c.coordinator("a")
	co.awaitLead(t)
	if rec, err := co.Snapshot(t.Context(), Request{Name: "s"}, nil); err != nil || rec.State != StateComplete {
		t.Errorf("%s, %v", rec.State, err)
	}
	co.close()
	for _, e := range []*Etcd{c.etcd, there} {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// URLs that can't be right are refused when the agent starts, not only when nothing answers there.
func TestEndpointsRefused(t *testing.T) {
	for _, bad := range []struct{ endpoints, want string }{
		{"10.1.0.1:2379", "write it as https://HOST:PORT"},
		{"https://10.1.0.1", "write it as https://HOST:PORT"},
		{"unix://10.1.0.1:2379", "write it as https://HOST:PORT"},
		{"http://10.1.0.1:2379,https://10.1.0.2:2379", "either all are https or none is"},
		{"https://10.1.0.1:2379", "needs certificates"},
	} {
		_, err := OpenEtcd("one", "", config.Etcd{Endpoints: strings.Split(bad.endpoints, ",")}, nil)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v; want %q", bad.endpoints, err, bad.want)
		}
	}
}
