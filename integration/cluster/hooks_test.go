package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// around is a hook that brings a "database" to rest by a file in its volume. It notes each call, and fails or hangs if told to.
const around = `#!/bin/sh
cd "${0%/*}"
echo "$GRAPHVOL_PHASE $GRAPHVOL_RESULT $GRAPHVOL_VOLUME $GRAPHVOL_SNAPSHOT $GRAPHVOL_MOUNT" >> calls
if [ $GRAPHVOL_PHASE = post ]; then rm -f "$GRAPHVOL_MOUNT/quiesced"; exit; fi
: > "$GRAPHVOL_MOUNT/quiesced"
if [ -e fail ]; then echo "the database is busy"; exit 3; fi
if [ -e hang ]; then echo $$ > hang; exec sleep 1000; fi
`

// withHooks has a node run that hook around the pause.
func (t *test) withHooks(n *Node) string {
	t.Helper()
	path := n.dir("around")
	if err := os.WriteFile(path, []byte(around), 0o755); err != nil {
		t.Fatal(err)
	}
	t.forgetCalls(n)
	return fmt.Sprintf("    hooks:\n      pre: [{command: [%s], timeout: 3s}]\n      post: [{command: [%s]}]\n", path, path)
}

func (t *test) forgetCalls(n *Node) {
	t.Helper()
	if err := os.Remove(n.dir("calls")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// calls are those that a node's hook has noted.
func (n *Node) calls() []string {
	raw, _ := os.ReadFile(n.dir("calls"))
	return strings.FieldsFunc(string(raw), func(r rune) bool { return r == '\n' })
}

// callsFor are those for one snapshot: the post hook of the one before may note its call late.
func (n *Node) callsFor(snapshot string) []string {
	return slices.DeleteFunc(n.calls(), func(line string) bool { return !strings.Contains(line, " "+snapshot+" ") })
}

// call is how the hook notes one.
func (n *Node) call(phase, result, snapshot string) string {
	return fmt.Sprintf("%s %s graph %s %s", phase, result, snapshot, n.Volumes[0].Mount)
}

// hooks: they run around the pause, on every node, and what they begin is ended whatever happens.
func (t *test) hooks() {
	for _, n := range t.Nodes {
		t.set(n, settings{volume: t.withHooks(n)})
	}
	t.snapshot("hooked")
	for _, n := range t.Nodes {
		want := []string{n.call("pre", "", "hooked"), n.call("post", "taken", "hooked")}
		if got := n.callsFor("hooked"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("hooks of %s: %q, want %q", n.Name, got, want)
		}
		if _, err := os.Stat(filepath.Join(n.Volumes[0].SnapshotDir("hooked"), "quiesced")); err != nil {
			t.Errorf("the snapshot isn't of the time between the hooks: %v", err)
		}
		t.forgetCalls(n)
	}
	t.failingHook("fail", "node b: the pre hook "+t.Nodes[1].dir("around")+" of graph has failed with exit code 3: the database is busy")
	t.failingHook("hang", "node b: the pre hook "+t.Nodes[1].dir("around")+" of graph was ended after its time-out of 3s")
}

// failingHook has the pre hook of the second node fail, and looks at what is left: nothing.
func (t *test) failingHook(how, want string) {
	t.Helper()
	n := t.Nodes[1]
	flag := n.dir(how)
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(flag)
	t.refused(t.Nodes[0], 1, want, "snapshot", "--name", how)
	if states, errs := t.records(how); fmt.Sprint(states) != "[failed]" || !strings.Contains(errs, want) {
		t.Errorf("the records of %s are %v: %s", how, states, errs)
	}
	for _, n := range t.Nodes {
		t.released(n, how)
		if left := t.parts(n.Volumes[0]); left != "hooked" {
			t.Errorf("%s has %q", n.Volumes[0].Mount, left)
		}
		t.forgetCalls(n)
	}
	if how == "hang" {
		raw, _ := os.ReadFile(flag)
		var pid int
		if _, err := fmt.Sscan(string(raw), &pid); err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			t.Errorf("the hook that hangs (%q) goes on: %v", raw, err)
		}
	}
}

// released waits until every pre hook of a node has been followed by a post hook that was told of the failure. On nodes where none fails the snapshot ends at any moment: before the pre hook, or
// while it is about to note its call.
func (t *test) released(n *Node, snapshot string) {
	t.Helper()
	pre, post := n.call("pre", "", snapshot), n.call("post", "failed", snapshot)
	t.eventually("the database of "+n.Name+" goes on", func(context.Context) bool {
		_, err := os.Stat(filepath.Join(n.Volumes[0].Mount, "quiesced"))
		got := fmt.Sprint(n.callsFor(snapshot))
		cutOff := n != t.Nodes[1] && (got == "[]" || got == fmt.Sprint([]string{post}))
		return errors.Is(err, os.ErrNotExist) && (cutOff || got == fmt.Sprint([]string{pre, post}))
	})
}

// quiesced: an agent dies between the hooks, and the next one lets the database go on.
func (t *test) quiesced() {
	ctx, cancel := t.bounded()
	defer cancel()
	x := t.other(ctx)
	if _, err := metadata(x); err != nil { // its program is a second hook, which can be made to wait
		t.Fatal(err)
	}
	block := hookOf(x)
	second := fmt.Sprintf("}, {command: [%s], timeout: 30s}]\n      post", block.path("metadata"))
	t.set(x, settings{volume: strings.Replace(t.withHooks(x), "}]\n      post", second, 1)})
	block.arm(0)
	result := make(chan error, 1)
	go func() {
		_, err := t.Nodes[(x.number+1)%3].Snapshot(ctx, "killed")
		result <- err
	}()
	t.eventually("the first hook has run", func(context.Context) bool { return block.reached(0) })
	x.Kill()
	block.pass(0)
	t.failed(<-result, 1, "node "+x.Name)
	flag := filepath.Join(x.Volumes[0].Mount, "quiesced")
	if _, err := os.Stat(flag); err != nil {
		t.Errorf("nobody was there to end it: %v", err)
	}
	if err := t.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(flag); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next agent is ready, and the database at rest: %v", err)
	}
	if got, want := x.callsFor("killed"), []string{x.call("pre", "", "killed"), x.call("post", "unknown", "killed")}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	t.snapshot("after-killed")
}
