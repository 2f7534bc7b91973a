package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/volume"
)

// TestAgents is what agents do beside being consistent, on one cluster: each part leaves it as it was. The last one loses etcd.
func TestAgents(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: Loopback(), Extra: copied})
	for _, part := range []struct {
		name string
		run  func(*test)
	}{
		{"hooks", (*test).hooks},
		{"priority", (*test).usualAgain},
		{"agent dies between hooks", (*test).quiesced},
		{"metadata", (*test).graphs},
		{"configuration", (*test).centre},
		{"refused configuration", (*test).refusedConfig},
		{"volumes of the configuration", (*test).configuredVolumes},
		{"names", (*test).snapshotNames},
		{"delete", (*test).deletes},
		{"tidy up", (*test).tidied},
		{"restore", (*test).restores},
		{"interface", (*test).overGRPC},
		{"traces", (*test).traces},
		{"metrics", (*test).metrics},
		{"administrators", (*test).administrators},
		{"repair", (*test).repairs},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(&test{c.Cluster, t}) })
		c.reset()
	}
}

// reset takes back all configurations of the centre, and deletes all snapshots of the cluster.
func (t *test) reset() {
	t.Helper()
	t.store("", "")
	for _, n := range t.Nodes {
		t.store(n.Name, "")
	}
	for _, n := range t.Nodes {
		t.runs(n, "its own file")
	}
	t.clear()
}

// copied gives the volumes of all nodes but the last a copy.
func copied(n *Node) (string, error) {
	if n.number == n.cluster.Size-1 {
		return "", nil
	}
	return fmt.Sprintf("    copies:\n      - targets: [\"dir:%s\"]\n", n.dir("copy")), os.MkdirAll(n.dir("copy"), 0o700)
}

// dir is a directory of a node's own.
func (n *Node) dir(name string) string { return filepath.Join(filepath.Dir(n.Config), name) }

// settings are a node's configuration in the centre, beside what is in its file too.
type settings struct {
	top     string // lines
	cluster string // lines of cluster, indented by 2
	volume  string // lines of its volume, indented by 4
	volumes string // further volumes, indented by 2
}

// central is a node's configuration in the centre.
func (t *test) central(n *Node, s settings) string {
	t.Helper()
	more, err := copied(n)
	if err != nil {
		t.Fatal(err)
	}
	v := n.Volumes[0]
	return fmt.Sprintf("cluster:\n  nodes: [%s]\n  timeout: %v\n%s%svolumes:\n  - name: graph\n    backing: %s\n    mount: %s\n    snapshot: {settle-after: 0s}\n%s%s%s",
		t.names(), t.Timeout, s.cluster, s.top, v.Backing, v.Mount, more, s.volume, s.volumes)
}

// configFor is the result of graphvol cluster config.
type configFor struct {
	Node     string `json:"node"`
	Revision int64  `json:"revision"`
	Text     string `json:"text"`
}

// store sets a configuration in the centre, and gives its revision. An empty node stands for all, an empty text removes it.
func (t *test) store(node, text string) int64 {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	args := []string{"config", "set", "--remove"}
	if text != "" {
		args = []string{"config", "set", t.file("central.yaml", text)}
	}
	if node != "" {
		args = append(args, "--node", node)
	}
	c, err := query[configFor](t.Nodes[0], ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c.Revision
}

// file writes a file and gives its path.
func (t *test) file(name, text string) string {
	t.Helper()
	path := filepath.Join(t.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// set gives a node a configuration of the centre, which it runs when set returns.
func (t *test) set(n *Node, s settings) {
	t.Helper()
	t.runs(n, fmt.Sprintf("revision %d", t.store(n.Name, t.central(n, s))))
}

// runs waits until a node says that it runs a configuration.
func (t *test) runs(n *Node, want string) {
	t.Helper()
	t.eventually("node "+n.Name+" runs "+want, func(ctx context.Context) bool { return t.row(ctx, n).Config == want })
}

// row is what graphvol cluster status says of a node, on that node.
func (t *test) row(ctx context.Context, n *Node) (row struct{ Config, Problem string }) {
	st, err := n.Status(ctx)
	if err != nil {
		return row
	}
	for _, r := range st.Nodes {
		if r.Name == n.Name {
			row.Config, row.Problem = r.Config, r.Problem
		}
	}
	return row
}

// snapshot takes a snapshot of the cluster that must become complete.
func (t *test) snapshot(name string) Row {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	row, err := t.Nodes[0].Snapshot(ctx, name)
	if err != nil || row.State != "complete" {
		t.Fatalf("snapshot %s: %v, %+v", name, err, row)
	}
	return row
}

// records gives the states of all records with a name, and their errors, oldest first.
func (t *test) records(name string) (states []string, errs string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	all, err := t.Nodes[0].Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Name == name {
			states, errs = append(states, r.State), errs+r.Error+"\n"
		}
	}
	return states, errs
}

// refused runs a command on a node that must fail with a code, and say so in one line with some words.
func (t *test) refused(n *Node, code int, want string, args ...string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	_, err := n.Run(ctx, args...)
	t.failed(err, code, want)
}

// failed fails the test unless err is a command's with a code, and one line with some words.
func (t *test) failed(err error, code int, want string) {
	t.Helper()
	var exit *volume.ExitError
	if !errors.As(err, &exit) || exit.Code != code {
		t.Errorf("%v, want exit code %d", err, code)
		return
	}
	if strings.Count(exit.Stderr, "\n") != 1 || !strings.Contains(exit.Stderr, want) {
		t.Errorf("graphvol %q: want one line with %q, got %q", exit.Args, want, exit.Stderr)
	}
	for _, inside := range []string{"rpc error", "panic", ".go:", "%!", "context deadline exceeded", "code = "} {
		if strings.Contains(exit.Stderr, inside) {
			t.Errorf("standard error shows %q: %s", inside, exit.Stderr)
		}
	}
}

// parts gives the names of the volume's snapshots that aren't failed, oldest first.
func (t *test) parts(v *volume.Volume) string {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	all, err := v.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		if s.State != "failed" {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, " ")
}

// clear deletes all snapshots of the cluster.
func (t *test) clear() {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	all, err := t.Nodes[0].Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return
	}
	args := []string{"delete"}
	for _, r := range all {
		args = append(args, r.ID)
	}
	if _, err := t.Nodes[0].Run(ctx, args...); err != nil {
		t.Fatal(err)
	}
}

// stamps gives the versions of the graph that a manifest in a volume's store has, by node.
func (t *test) stamps(v *volume.Volume, id string) map[string]string {
	t.Helper()
	var m struct {
		Metadata map[string]struct {
			Version string `json:"version"`
		} `json:"metadata"`
	}
	t.eventually("the manifest is stored at "+v.StateDir(), func(context.Context) bool {
		raw, err := os.ReadFile(filepath.Join(v.StateDir(), "store", "clusters", id+".json"))
		return err == nil && json.Unmarshal(raw, &m) == nil
	})
	out := make(map[string]string)
	for node, meta := range m.Metadata {
		out[node] = meta.Version
	}
	return out
}
