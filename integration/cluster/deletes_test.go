package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// snapshotNames: what can't be a name is refused before anything is done, and so is one that is in use.
func (t *test) snapshotNames() {
	n := t.Nodes[0]
	for _, bad := range []struct{ name, want string }{
		{"a/b", "slash"}, {"..", "directory"}, {"latest", "newest"}, {"a\nb", "control character"}, {strings.Repeat("x", 256), "at most 255"}, {"-x", "dash"}, {"a\xffb", "UTF-8"},
	} {
		t.refused(n, 1, bad.want, "snapshot", "--name="+bad.name)
		if states, _ := t.records(bad.name); len(states) > 0 {
			t.Errorf("%q: there are records, %v", bad.name, states)
		}
	}
	for _, odd := range []string{"Größe 1", "a*b", "%s", "x;y"} {
		if row := t.snapshot(odd); row.Name != odd {
			t.Errorf("%q became %q", odd, row.Name)
		}
	}
	t.refused(t.Nodes[1], 1, `a snapshot of the cluster with this name already: "a*b"`, "snapshot", "--name", "a*b")
	if states, _ := t.records("a*b"); fmt.Sprint(states) != "[complete]" {
		t.Errorf("%v", states)
	}
}

// deletes: a snapshot is deleted on all nodes, on one that is away when it is back. Its parts can't be deleted alone.
func (t *test) deletes() {
	ctx, cancel := t.bounded()
	defer cancel()
	t.snapshot("first")
	t.snapshot("second")
	by := t.Nodes[0]
	_, err := by.Volumes[0].Run(ctx, "delete", by.Volumes[0].Mount, "first")
	t.failed(err, 1, "part of the cluster's snapshot first")
	t.refused(by, 1, `no such snapshot of the cluster: "third"`, "delete", "first", "third")
	if states, _ := t.records("first"); fmt.Sprint(states) != "[complete]" {
		t.Errorf("first was deleted, and a snapshot named beside it isn't known: %v", states)
	}
	away := t.other(ctx)
	if err := away.Stop(); err != nil {
		t.Fatal(err)
	}
	by = t.Nodes[(away.number+1)%3]
	t.refused(by, 1, "on the other nodes when they are there: node "+away.Name, "delete", "first")
	all, err := by.Snapshots(ctx)
	if err != nil || len(all) != 2 || all[0].State != "deleting" || all[1].State != "complete" {
		t.Errorf("%v: %+v", err, all)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.eventually("the snapshot is gone", func(ctx context.Context) bool {
		all, err := by.Snapshots(ctx)
		return err == nil && len(all) == 1
	})
	for _, v := range t.volumes() {
		if left := t.parts(v); left != "second" {
			t.Errorf("%s has %q", v.Mount, left)
		}
	}
	t.clear()
	for i := range 8 {
		t.snapshot(fmt.Sprint("one of many ", i))
	}
	t.clear() // while nodes look, since the first is gone, whether they have the others' manifests
	for _, v := range t.volumes() {
		if left := t.parts(v); left != "" {
			t.Errorf("%s has %q", v.Mount, left)
		}
		if left, err := filepath.Glob(filepath.Join(v.StateDir(), "store", "clusters", "*")); err != nil || len(left) > 0 {
			t.Errorf("manifests are left: %v, %q", err, left)
		}
	}
}
