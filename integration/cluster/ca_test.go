package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOtherCA: the CA is replaced while agents run, as docs/certificates.md says, and nobody restarts one: not even members of etcd, which reads the CA only when it starts, are cut off.
func TestOtherCA(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: Loopback()})
	other := filepath.Join(c.Dir, "other")
	ctx, cancel := c.bounded()
	defer cancel()
	if _, err := run(ctx, c.Bin, "cert", "ca", other); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if _, err := run(ctx, c.Bin, "cert", "node", other, n.Name, "--host", c.Net.Host(n.number)); err != nil {
			t.Fatal(err)
		}
	}
	old, added := c.read(c.certs()+"/ca.crt"), c.read(other+"/ca.crt")
	c.replace("ca.crt", old+added)
	c.startedAnew(1)
	for _, n := range c.Nodes {
		for _, name := range []string{n.Name + ".crt", n.Name + ".key"} {
			c.replace(name, c.read(filepath.Join(other, name)))
		}
	}
	c.replace("ca.crt", added)
	c.startedAnew(2)
	a := c.Nodes[0]
	a.Kill() // so that all its connections are made anew
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if row, err := a.Snapshot(ctx, "after"); err != nil || row.State != "complete" {
		t.Errorf("a snapshot with the other CA: %+v, %v", row, err)
	}
}

// replace puts a certificate into the place of an old one.
func (t *test) replace(name, text string) {
	t.Helper()
	path := filepath.Join(t.certs(), name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (t *test) read(path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// startedAnew waits until every agent has done so a number of times, in the same process, and the cluster is whole.
func (t *test) startedAnew(times int) {
	t.Helper()
	t.eventually("all agents have started anew", func(ctx context.Context) bool {
		for _, n := range t.Nodes {
			if strings.Count(t.read(n.logPath()), `"msg":"the agent starts anew"`) < times {
				return false
			}
		}
		return t.whole(ctx) == nil
	})
	for _, n := range t.Nodes {
		select {
		case <-n.ended:
			t.Fatalf("the agent of %s has ended", n.Name)
		default:
		}
	}
}
