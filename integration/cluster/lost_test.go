package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lostEtcd: all members' data is gone, and with it all records and the configuration centre. Manifests give the records back, and nodes what they had of the centre.
func (t *test) lostEtcd(ctx context.Context, row Row) {
	t.Helper()
	b, c := t.Nodes[1], t.Nodes[2]
	t.set(b, settings{})
	t.set(c, settings{volume: t.withHooks(c)})
	kept := []string{t.config(b), t.config(c)}
	for _, n := range t.Nodes {
		n.Kill()
		if err := os.RemoveAll(filepath.Join(n.State, "etcd")); err != nil {
			t.Fatal(err)
		}
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := t.Nodes[0].Snapshots(ctx); err != nil || len(all) > 0 {
		t.Fatalf("%v: %+v", err, all)
	}
	t.lostCentre(ctx, kept)
	t.found(false, `whole   "etcd has no record of it" "it has one again"`)
	all, err := t.Nodes[0].Snapshots(ctx)
	if err != nil || len(all) != 1 || len(all[0].Nodes) != 3 || all[0].ID != row.ID || all[0].Checksum != row.Checksum || all[0].State != "complete" {
		t.Errorf("%v: %+v, it was %+v", err, all, row)
	}
	t.found(false, "")
	if _, err := t.Nodes[0].Run(ctx, "restore", "latest", t.Dir+"/restored", "--dry-run"); err != nil {
		t.Error(err)
	}
}

// restoredConfig is what config restore tells.
type restoredConfig struct {
	Restored []struct {
		Node     string   `json:"node"`
		Revision int64    `json:"revision"`
		From     []string `json:"from"`
	} `json:"restored"`
}

// lostCentre: nodes b and c go on with what they had, and say so, until it is put back, or another one is set.
func (t *test) lostCentre(ctx context.Context, kept []string) {
	t.Helper()
	a, b, c := t.Nodes[0], t.Nodes[1], t.Nodes[2]
	t.runs(a, "its own file")
	for i, n := range []*Node{b, c} {
		t.runs(n, kept[i]+", lost in etcd")
		if p := t.row(ctx, n).Problem; !strings.Contains(p, "graphvol cluster config restore") {
			t.Errorf("node %s doesn't tell what to do: %s", n.Name, p)
		}
	}
	if err := b.Stop(); err != nil { // what it has kept outlives another start
		t.Fatal(err)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.runs(b, kept[0]+", lost in etcd")
	t.refused(a, 1, "none is set", "config", "get", "--node", "b")
	t.store("", "cluster: {timeout: 20s}\n") // that isn't in the place of b's own
	t.store("", "")
	t.runs(b, kept[0]+", lost in etcd")

	would, err := query[restoredConfig](a, ctx, "config", "restore", "--dry-run")
	if err != nil || len(would.Restored) != 2 || would.Restored[0].Revision != 0 {
		t.Errorf("%v: %+v", err, would)
	}
	t.refused(a, 1, "none is set", "config", "get", "--node", "b")
	t.set(c, settings{})
	done, err := query[restoredConfig](a, ctx, "config", "restore")
	if err != nil || len(done.Restored) != 1 || done.Restored[0].Node != "b" || !slices.Equal(done.Restored[0].From, []string{"b"}) {
		t.Fatalf("%v: %+v", err, done)
	}
	t.runs(b, fmt.Sprintf("revision %d", done.Restored[0].Revision))
	if got, err := query[configFor](a, ctx, "config", "get", "--node", "b"); err != nil || got.Text != t.central(b, settings{}) {
		t.Errorf("%v: %+v", err, got)
	}
	if p := t.row(ctx, b).Problem; p != "" {
		t.Errorf("what was wrong is still told: %s", p)
	}
	t.refused(a, 1, "no node has a configuration that the centre has lost", "config", "restore")
}
