package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/agent/config"
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
