package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"graphvol/integration/rig"
)

// restores: a snapshot comes back byte by byte, on the nodes that it is of or on others.
func (t *test) restores() {
	ctx, cancel := t.bounded()
	defer cancel()
	content := make(map[*Node][]byte)
	for i, n := range t.Nodes {
		content[n] = rig.WriteFile(t, filepath.Join(n.Volumes[0].Mount, "data"), 300_000+i)
	}
	t.snapshot("wanted")
	for _, n := range t.Nodes {
		rig.WriteFile(t, filepath.Join(n.Volumes[0].Mount, "data"), 1000)
	}
	for _, n := range t.Nodes[:2] {
		if _, err := n.Volumes[0].Run(ctx, "sync", n.Volumes[0].Mount); err != nil {
			t.Fatal(err)
		}
	}
	t.restoredAs(content, map[string]int{"a/graph": 0, "b/graph": 1, "c/graph": 2})
	t.restoredAs(content, map[string]int{"a/graph": 0, "a/bs": 1, "c/graph": 2}, "--map", "a=a", "--map", "b:graph=a:bs", "--map", "c=c")
	t.notRestored(1, "--map says nothing of c:graph", "--map", "a=a", "--map", "b=b")
	t.notRestored(1, "the snapshot has no d", "--map", "a=a", "--map", "b=b", "--map", "c=c", "--map", "d=a")
	t.notRestored(1, "node d, which is not in the cluster", "--map", "a=d", "--map", "b=b", "--map", "c=c")
	t.notRestored(1, "would both be restored to a:graph", "--map", "a=a", "--map", "b=a", "--map", "c=c")
	t.notRestored(1, "no copies", "--map", "a=a", "--map", "b=b", "--map", "c:graph=a:cs")
	t.refused(t.Nodes[0], 1, "no such snapshot", "restore", "unknown", t.Dir+"/restored")
	t.refused(t.Nodes[0], 1, "; node c: restoring c:graph to ", "restore", "wanted", t.file("file", "")+"/below")

	b := t.Nodes[1]
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	t.notRestored(1, "node b, which is not in the cluster: start its agent, or say where it goes")
	t.restoredAs(content, map[string]int{"a/bs": 1, "c/graph": 2}, "--map", "a=-", "--map", "b:graph=a:bs", "--map", "c=c")
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// restoredAs restores the snapshot, first without doing it, and compares what is there with what nodes had, by their numbers.
func (t *test) restoredAs(content map[*Node][]byte, want map[string]int, rules ...string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	dest := filepath.Join(t.Dir, "restored")
	type result struct {
		Volumes []struct {
			Destination string `json:"destination"`
			Bytes       int64  `json:"bytes"`
		} `json:"volumes"`
	}
	args := append([]string{"restore", "wanted", dest}, rules...)
	plan, err := query[result](t.Nodes[0], ctx, append(args, "--dry-run")...)
	if _, serr := os.Stat(dest); err != nil || serr == nil || len(plan.Volumes) != len(want) {
		t.Errorf("without doing it: %v, %v, %+v", err, serr, plan)
	}
	done, err := query[result](t.Nodes[0], ctx, args...)
	if err != nil || len(done.Volumes) != len(want) {
		t.Errorf("%v: %+v", err, done)
	}
	for path, number := range want {
		rig.SameFile(t, filepath.Join(dest, path, "data"), content[t.Nodes[number]])
	}
	for _, v := range done.Volumes {
		if rel, err := filepath.Rel(dest, v.Destination); err != nil || int(v.Bytes) < 300_000 {
			t.Errorf("%+v", v)
		} else if _, ok := want[rel]; !ok {
			t.Errorf("%s is restored", rel)
		}
	}
	if err := os.RemoveAll(dest); err != nil {
		t.Fatal(err)
	}
}

// notRestored fails the test unless a restore is refused before it has begun.
func (t *test) notRestored(code int, why string, rules ...string) {
	t.Helper()
	dest := filepath.Join(t.Dir, "restored")
	t.refused(t.Nodes[0], code, why, append([]string{"restore", "wanted", dest}, rules...)...)
	t.refused(t.Nodes[0], code, why, append([]string{"restore", "wanted", dest, "--dry-run"}, rules...)...)
	if _, err := os.Stat(dest); err == nil {
		t.Errorf("%q: something was restored", rules)
	}
}

// repairs: records and what nodes have are compared; records that etcd has lost come back.
func (t *test) repairs() {
	ctx, cancel := t.bounded()
	defer cancel()
	t.snapshot("damaged")
	row := t.snapshot("whole")
	n, v := t.Nodes[1], t.Nodes[1].Volumes[0]
	for _, command := range []string{"release", "delete"} {
		if _, err := v.Run(ctx, command, v.Mount, "damaged"); err != nil {
			t.Fatal(err)
		}
	}
	t.found(false, `damaged b graph "its part is not there" "the snapshot is called damaged"`, "--dry-run")
	if states, _ := t.records("damaged"); fmt.Sprint(states) != "[complete]" {
		t.Errorf("a dry run has done something: %v", states)
	}
	t.found(false, `damaged b graph "its part is not there" "the snapshot is called damaged"`)
	if states, errs := t.records("damaged"); fmt.Sprint(states) != "[damaged]" || errs != "node b: volume graph: its part is not there\n" {
		t.Errorf("%v: %s", states, errs)
	}
	t.refused(n, 1, "the snapshot damaged is damaged: only a complete one can be restored", "restore", "damaged", t.Dir+"/restored")
	t.found(false, "")
	if _, err := n.Run(ctx, "delete", "damaged"); err != nil {
		t.Error(err)
	}
	t.lostEtcd(ctx, row)
}

// found runs graphvol cluster repair, and compares what it finds.
func (t *test) found(fails bool, want string, args ...string) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	found, err := query[struct {
		Findings []struct{ Snapshot, Node, Volume, Problem, Done string }
		Away     []string
	}](t.Nodes[0], ctx, append([]string{"repair"}, args...)...)
	got := ""
	for _, f := range found.Findings {
		got += fmt.Sprintf("%s %s %s %q %q", f.Snapshot, f.Node, f.Volume, f.Problem, f.Done)
	}
	if (err != nil) != fails || got != want || len(found.Away) > 0 {
		t.Errorf("repair %q: %v, away %q, found %s, want %s", args, err, found.Away, got, want)
	}
}
