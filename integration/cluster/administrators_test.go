package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"graphvol/integration/volume"
)

// administrators: what is wrong with an agent's start is one line, and ending it leaves the volumes as they are.
func (t *test) administrators() {
	a := t.Nodes[0]
	t.notStarted("no-such.yaml: no such file or directory", t.Dir+"/no-such.yaml")
	for _, bad := range []struct{ text, want string }{
		{"node:\n  name: x\n  bogus: 1\n", "line 3"},
		{"node: [\n", "line 1"},
		{"node: {state: var/lib}\n", "var/lib: only absolute paths"},
		{"node: {name: x, state: %[1]s/x, log-level: loud}\n", `no log level "loud"`},
		{"node: {listen: \"0.0.0.0:7443\"}\n", "needs tls"},
		{"node: {state: %[1]s/a/graphvol.yaml/x}\n", "not a directory; choose another (node: state)"},
		{"node: {name: x, state: %[1]s/x, tls: {ca: %[1]s/certs/ca.crt, cert: %[1]s/none, key: %[1]s/certs/a.key}}\n", "the certificate %[1]s/none can't be read"},
		{"node: {name: x, state: %[1]s/x, tls: {ca: %[1]s/certs/ca.crt, cert: %[1]s/certs/a.crt, key: %[1]s/certs/a.key}}\n", "x"},
		{"node: {name: x, state: %[1]s/x}\nvolumes:\n  - {backing: %[1]s/none, mount: %[1]s/a}\n  - {backing: %[1]s/none, mount: %[1]s/b}\n", "used by volume 1"},
	} {
		t.notStarted(strings.ReplaceAll(bad.want, "%[1]s", t.Dir), t.file("bad.yaml", strings.ReplaceAll(bad.text, "%[1]s", t.Dir)))
	}
	t.notStarted("another agent uses "+a.State, a.Config)
	t.inUse(a)
	t.otherCA(a)
	t.noAgent()
	t.ends()
}

// notStarted runs an agent that must end with one line.
func (t *test) notStarted(want, config string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	out, err := run(ctx, t.Bin, "agent", "--config", config)
	t.failed(err, 1, want)
	if out != "" {
		t.Errorf("the agent said %q", out)
	}
}

// edited is a node's configuration with other words in it.
func (t *test) edited(n *Node, words ...string) string {
	t.Helper()
	raw, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	return t.file("edited.yaml", strings.NewReplacer(words...).Replace(string(raw)))
}

// inUse: another agent has the addresses.
func (t *test) inUse(n *Node) {
	t.Helper()
	t.notStarted("address already in use; choose another address (node: listen)", t.edited(n, n.State, t.Dir+"/x"))
	t.notStarted("the agent's own etcd", t.edited(n, n.State, t.Dir+"/x", "  listen: "+n.listen(t)+"\n", ""))
}

// otherCA: the certificate is signed by somebody else.
func (t *test) otherCA(n *Node) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	other := t.Dir + "/other"
	for _, args := range [][]string{{"cert", "ca", other}, {"cert", "node", other, n.Name, "--host", "127.0.0.1"}} {
		if _, err := run(ctx, t.Bin, args...); err != nil {
			t.Fatal(err)
		}
	}
	t.notStarted(other+"/a.crt", t.edited(n, n.State, t.Dir+"/x", t.certs()+"/a.", other+"/a."))
}

// noAgent: commands say that nobody answers.
func (t *test) noAgent() {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	socket := t.Dir + "/no.sock"
	for _, args := range [][]string{
		{"status"}, {"snapshot"}, {"snapshots"}, {"delete", "x"}, {"restore", "x", "/srv/x"}, {"repair"}, {"config", "get"}, {"config", "set", "--remove"},
		{"config", "restore"}, {"member", "list"}, {"member", "add", "d", "https://10.1.0.4:7441"}, {"member", "remove", "d"},
	} {
		_, err := run(ctx, t.Bin, append(append([]string{"cluster"}, args...), "--socket", socket)...)
		t.failed(err, 1, "no agent answers at "+socket+": start it (graphvol agent), or name its --config or --socket")
	}
	for _, args := range [][]string{{}, {"bogus"}, {"delete"}, {"restore", "x"}, {"config"}, {"config", "set"}, {"status", "x"}, {"snapshot", "--bogus"}, {"member"}, {"member", "add", "d"}, {"member", "remove"}} {
		_, err := run(ctx, t.Bin, append([]string{"cluster"}, args...)...)
		t.failed(err, 2, "see: graphvol cluster")
	}
	_, err := run(ctx, t.Bin, "agent", "more")
	t.failed(err, 2, "agent takes no arguments")
}

// ends: the agent leaves when it is asked to, and the volumes stay.
func (t *test) ends() {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	n := t.other(ctx)
	before, cmd := t.pids(ctx, n), n.agent
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the agent has ended with %v", cmd.ProcessState)
	}
	if after := t.pids(ctx, n); fmt.Sprint(after) != fmt.Sprint(before) || !volume.Mounted(n.Volumes[0].Mount) {
		t.Errorf("servers and holders before and after its agent has ended: %v, %v", before, after)
	}
	if _, err := os.Stat(filepath.Join(n.State, "agent.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
	t.eventually("it isn't there any more", func(ctx context.Context) bool {
		_, err := t.Nodes[(n.number+1)%3].Snapshot(ctx, "ended")
		return err != nil && strings.Contains(err.Error(), "node "+n.Name) || err != nil && strings.Contains(err.Error(), n.Name+", ")
	})
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
}
