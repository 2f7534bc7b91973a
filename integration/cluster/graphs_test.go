package cluster

import (
	"fmt"
	"maps"
	"os"
	"strings"
)

// graph is a program that tells what a graph is: at its nth call what is in the file n, if that is there, else what is in default.
const graph = `#!/bin/sh
cd "${0%/*}"
n=$(cat calls); echo $((n + 1)) > calls
if [ -e $n ]; then cat $n; else cat default; fi
`

// graphOf makes that program for a node, which answers by what calls say one after the other, and by the last of them from then on.
func (t *test) graphOf(n *Node, calls ...string) (path string) {
	t.Helper()
	dir := n.dir("graphs")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"graph": graph, "calls": "0\n", "default": calls[len(calls)-1]}
	for i, text := range calls {
		files[fmt.Sprint(i)] = text
	}
	for name, text := range files {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir + "/graph"
}

// graphs: a snapshot has the graph's version, is taken of a graph that doesn't change meanwhile, and is restored to one of the same version.
func (t *test) graphs() {
	b, c := t.Nodes[1], t.Nodes[2]
	t.set(b, settings{top: fmt.Sprintf("metadata: {command: [%s]}\n", t.graphOf(b, `{"version": "2"}`, `{"version": "3"}`, `{"version": "2"}`))})
	file := t.file("graph.json", `{"version": "2", "partitions": {}}`)
	t.set(c, settings{top: fmt.Sprintf("metadata: {file: %s}\n", file)})
	t.triedAgain("changed", "node b: the graph was changed while the snapshot was taken, so it is not kept: version was 2 and is 3")
	t.graphOf(b, `{"version": "2", "in_progress": "a job moves partitions"}`, `{"version": "2"}`)
	t.triedAgain("busy", "a job moves partitions")
	t.graphOf(b, `{"version": "2", "in_progress": "a job moves partitions"}`)
	t.refused(t.Nodes[0], 1, "a job moves partitions", "snapshot", "--name", "always")
	if states, _ := t.records("always"); fmt.Sprint(states) != "[failed failed failed]" {
		t.Errorf("the tries are %v", states)
	}
	t.graphOf(b, "no JSON")
	t.refused(t.Nodes[0], 1, "node b: the graph's metadata", "snapshot", "--name", "broken")
	if states, _ := t.records("broken"); fmt.Sprint(states) != "[failed]" {
		t.Errorf("what can't come right by itself is tried again: %v", states)
	}
	t.graphOf(b, `{"version": "9"}`)
	t.refused(t.Nodes[0], 1, "node c: its metadata of the graph is another one than that of node b", "snapshot", "--name", "different")
	t.graphOf(b, `{"version": "2"}`)
	t.versions(file)
}

// triedAgain takes a snapshot whose first try must fail, and whose second must not.
func (t *test) triedAgain(name, why string) {
	t.Helper()
	row := t.snapshot(name)
	if states, errs := t.records(name); fmt.Sprint(states) != "[failed complete]" || !strings.Contains(errs, why) {
		t.Errorf("the tries of %s are %v: %s", name, states, errs)
	}
	for _, v := range t.volumes() {
		if got, want := t.stamps(v, row.ID), map[string]string{"b": "2", "c": "2"}; !maps.Equal(got, want) {
			t.Errorf("the manifest at %s has the versions %v, want %v", v.Mount, got, want)
		}
	}
}

// versions: a restore compares the graph's with the snapshot's.
func (t *test) versions(file string) {
	t.Helper()
	n, dest := t.Nodes[0], t.Dir+"/restored"
	ctx, cancel := t.bounded()
	defer cancel()
	if _, err := n.Run(ctx, "restore", "busy", dest, "--dry-run"); err != nil {
		t.Errorf("the graph is what it was: %v", err)
	}
	if err := os.WriteFile(file, []byte(`{"version": "eight"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	t.refused(n, 1, "version was 2 and is eight", "restore", "busy", dest)
	if _, err := os.Stat(dest); err == nil {
		t.Error("something was restored")
	}
	if _, err := n.Run(ctx, "restore", "busy", dest, "--any-version", "--dry-run"); err != nil {
		t.Error(err)
	}
}
