package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// usualAgain: agents and servers run before all other processes while gates are closed, and only then. What they have started meanwhile never does.
func (t *test) usualAgain() {
	ctx, cancel := t.bounded()
	defer cancel()
	for _, n := range t.Nodes {
		hook := n.dir("policy")
		script := fmt.Sprintf("#!/bin/sh\ncut -d' ' -f41 /proc/self/stat >>%s.said\n", hook)
		if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.set(n, settings{volume: fmt.Sprintf("    hooks: {pre: [{command: [%s]}], post: [{command: [%s]}]}\n", hook, hook)})
	}
	for i := range 5 {
		t.snapshot(fmt.Sprintf("urgent%d", i))
	}
	for _, n := range t.Nodes {
		said, err := os.ReadFile(n.dir("policy.said"))
		if want := strings.Repeat("0\n", 10); err != nil || string(said) != want {
			t.Errorf("the policies of %s's hooks: %q, %v", n.Name, said, err)
		}
		for _, pid := range append(t.pids(ctx, n), n.agent.Process.Pid) {
			t.eventually("everything has the usual policy", func(context.Context) bool { return usualPolicy(pid) })
		}
	}
}

// usualPolicy tells whether no thread of a process runs before others.
func usualPolicy(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, path := range tasks {
		tid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			return false
		}
		if a, err := unix.SchedGetAttr(tid, 0); err == nil && a.Policy != unix.SCHED_NORMAL {
			return false
		}
	}
	return len(tasks) > 0
}
