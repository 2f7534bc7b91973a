package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"graphvol/integration/volume"
)

// centre: what is set for all, or for one node, is run while agents go on; also by one that starts while etcd is away.
func (t *test) centre() {
	a, b, c := t.Nodes[0], t.Nodes[1], t.Nodes[2]
	t.refused(a, 1, "none is set", "config", "get")
	all := t.store("", "cluster: {nodes: [a, b], timeout: 20s}\n")
	for _, n := range t.Nodes {
		t.runs(n, fmt.Sprintf("revision %d", all))
		if !volume.Mounted(n.Volumes[0].Mount) {
			t.Errorf("%s was unmounted", n.Volumes[0].Mount)
		}
	}
	t.refused(a, 1, "no node of the cluster has a volume", "snapshot")
	t.set(b, settings{})
	t.set(c, settings{volume: t.withHooks(c)})
	ctx, cancel := t.bounded()
	defer cancel()
	row := t.snapshot("of-some") // by the coordinator's word, which may be any
	if len(row.Nodes) == 0 || row.Nodes[0].Node != "b" {
		t.Errorf("%+v", row.Nodes)
	}
	got, err := query[configFor](c, ctx, "config", "get", "--node", "a", "--effective")
	if err != nil || got.Revision != all || !strings.Contains(got.Text, "20s") {
		t.Errorf("%v: %+v", err, got)
	}
	t.refused(a, 1, "somebody else has changed the configuration", "config", "set", "--was", "1", t.file("was.yaml", "cluster: {timeout: 30s}\n"))
}

// refusedConfig: what can't be right isn't set, and what a node can't become leaves it as it is.
func (t *test) refusedConfig() {
	n := t.Nodes[1]
	for _, bad := range []struct{ text, want string }{
		{"cluster:\n  nodse: [a]\n", "line 2"},
		{"cluster: {timeout: soon}\n", "soon"},
		{"cluster: {schedule: \"* * *\"}\n", "schedule"},
		{"cluster: {name: other}\n", "name"},
		{"node: {name: x}\n", "node and etcd belong into each node's own file"},
		{"volumes:\n  - {name: x, backing: srv, mount: /mnt/x}\n", "srv: only absolute paths"},
		{t.central(n, settings{volume: "    hooks: {pre: [{command: [relative]}]}\n"}), "relative: only absolute paths"},
		{t.central(n, settings{top: "metadata: {file: /a, command: [/b]}\n"}), "one of command, file and postgres"},
	} {
		t.refused(t.Nodes[0], 1, bad.want, "config", "set", "--node", n.Name, t.file("bad.yaml", bad.text))
	}
	t.refused(t.Nodes[0], 1, "no-such/node", "config", "set", "--node", "no-such/node", t.file("bad.yaml", "cluster: {}\n"))
	t.refused(t.Nodes[0], 1, "is empty", "config", "set", t.file("empty.yaml", ""))
	t.runs(n, "its own file")
	t.unknownNode()

	t.set(n, settings{volume: t.withHooks(n)})
	was := t.config(n)
	rev := t.store(n.Name, t.central(n, settings{volume: "    cache: through\n"}))
	t.runs(n, fmt.Sprintf("%s, refuses %d", was, rev))
	ctx, cancel := t.bounded()
	defer cancel()
	for _, by := range t.Nodes {
		st, err := by.Status(ctx)
		if err != nil || !strings.Contains(fmt.Sprint(st), "is mounted at "+n.Volumes[0].Mount+" with other options") {
			t.Errorf("node %s doesn't tell why: %v, %+v", by.Name, err, st)
		}
	}
	t.snapshot("old-config")
	if calls := n.callsFor("old-config"); len(calls) != 2 {
		t.Errorf("the configuration before isn't in force: its hooks have run as %q", calls)
	}
	t.store(n.Name, "")
	t.runs(n, "its own file")

	t.runs(n, fmt.Sprintf("its own file, refuses %d", t.store(n.Name, t.central(n, settings{volume: "    cache: through\n"}))))
	t.store(n.Name, "")
	t.runs(n, "its own file")
	if p := t.row(ctx, n).Problem; p != "" {
		t.Errorf("what was wrong with the configuration is still told: %s", p)
	}
	rev = t.store(n.Name, t.central(n, settings{volume: "    cache: through\n"}))
	t.runs(n, fmt.Sprintf("its own file, refuses %d", rev))
	t.remounted(n, fmt.Sprintf("revision %d", rev), "through")
	t.store(n.Name, "")
	t.eventually("the node's own file is refused", func(ctx context.Context) bool {
		return strings.Contains(t.row(ctx, n).Problem, "with other options")
	})
	t.runs(n, fmt.Sprintf("revision %d", rev))
	t.remounted(n, "its own file", "writeback")
}

// remounted unmounts a node's volume. What its agent has refused so far comes into force then by itself.
func (t *test) remounted(n *Node, config, cache string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	v := n.Volumes[0]
	if err := v.Umount(ctx); err != nil {
		t.Fatal(err)
	}
	t.runs(n, config)
	t.eventually("the volume is mounted with the other cache", func(ctx context.Context) bool {
		out, err := v.Run(ctx, "status", v.Mount)
		return err == nil && strings.Contains(out, "("+cache+" cache)")
	})
}

// unknownNode: the configuration of a node that isn't there is taken, as it may come, and told, as its name may be misspelt.
func (t *test) unknownNode() {
	for name, told := range map[string]string{"a": "", "z": "graphvol: no node z is in the cluster so far; it takes this when it joins\n"} {
		var stderr strings.Builder
		cmd := exec.CommandContext(t.Context(), t.Bin, "cluster", "config", "set", "--config", t.Nodes[0].Config, "--node", name, t.file("one.yaml", t.central(t.Nodes[0], settings{})))
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil || stderr.String() != told {
			t.Errorf("the configuration of node %s: %v, and it said %q", name, err, stderr.String())
		}
		t.store(name, "")
	}
}

func (t *test) config(n *Node) string {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	return t.row(ctx, n).Config
}

// configuredVolumes: a volume that is added is mounted, and part of the next snapshot; one that is taken away stays mounted, and isn't. An agent that starts while etcd is away mounts what it
// had last.
func (t *test) configuredVolumes() {
	n := t.Nodes[1]
	v, err := volume.New(volume.Options{Bin: t.Bin, Dir: n.dir("more")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	more := fmt.Sprintf("  - {name: more, backing: %s, mount: %s, snapshot: {settle-after: 0s}}\n", v.Backing, v.Mount)
	if err := os.Remove(v.Mount); err != nil { // so that it can't be mounted
		t.Fatal(err)
	}
	t.set(n, settings{volumes: more})
	ctx, cancel := t.bounded()
	defer cancel()
	t.eventually("the volume that can't be mounted is told", func(ctx context.Context) bool {
		st, err := t.Nodes[0].Status(ctx)
		return err == nil && strings.Contains(st.Nodes[1].Problem, "volume more: ")
	})
	t.refused(t.Nodes[0], 1, "of the volume more does not exist", "snapshot")
	tries := t.mountTries(n)
	t.set(n, settings{volume: t.withHooks(n), volumes: more})
	t.eventually("it is tried again under another configuration", func(context.Context) bool { return t.mountTries(n) > tries })
	if err := os.Mkdir(v.Mount, 0o755); err != nil {
		t.Fatal(err)
	}
	t.mounted(v)
	if row := t.snapshot("two"); len(row.Nodes) != 3 || len(row.Nodes[1].Volumes) != 2 || t.parts(v) != "two" {
		t.Errorf("%+v", row.Nodes)
	}
	t.withoutEtcd(ctx, n, v)
	t.set(n, settings{})
	if row := t.snapshot("one"); len(row.Nodes[1].Volumes) != 1 || !volume.Mounted(v.Mount) {
		t.Errorf("mounted: %v, %+v", volume.Mounted(v.Mount), row.Nodes)
	}
}

// mountTries tells how often a node's agent has failed to mount a volume, as it logs it.
func (t *test) mountTries(n *Node) int {
	t.Helper()
	raw, err := os.ReadFile(n.logPath())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(raw), `"the volume can't be mounted`)
}

func (t *test) mounted(v *volume.Volume) {
	t.Helper()
	t.eventually(v.Mount+" is mounted", func(context.Context) bool { return volume.Mounted(v.Mount) })
}

// withoutEtcd starts a node's agent alone: its etcd has no majority.
func (t *test) withoutEtcd(ctx context.Context, n *Node, v *volume.Volume) {
	t.Helper()
	for _, n := range t.Nodes {
		n.Kill()
	}
	if err := v.Umount(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if !volume.Mounted(v.Mount) {
		t.Errorf("the agent is ready and %s isn't mounted", v.Mount)
	}
	t.alone(n)
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(n.State, "config.json")); err != nil || !strings.Contains(string(raw), v.Mount) {
		t.Errorf("%v: %s", err, raw)
	}
}

// alone: a node that has lost etcd tells what it knows by itself.
func (t *test) alone(n *Node) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	out, err := n.Run(ctx, "status", "--json")
	t.failed(err, 1, "etcd doesn't answer: more than half of its members must be up and reach each other; this is what node "+n.Name+" knows by itself")
	var st Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || len(st.Nodes) == 0 || st.Coordinator != "" {
		t.Errorf("%v: a node without etcd says of the cluster %q", err, out)
	}
}
