package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/config"
	"graphvol/agent/hook"
	"graphvol/agent/telemetry"
)

// hooked is a node whose volumes' hooks write into a file that they are called.
func hooked(t *testing.T, labels ...string) (n *Node, volumes []*volume, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "calls")
	say := []config.Hook{{Command: []string{"/bin/sh", "-c", `echo "$GRAPHVOL_VOLUME $GRAPHVOL_PHASE $GRAPHVOL_SNAPSHOT" >> ` + path}}}
	n = &Node{state: dir, log: slog.New(slog.DiscardHandler), metrics: telemetry.NewMetrics("", func(context.Context) telemetry.Facts { return telemetry.Facts{} })}
	n.mu.problems = make(map[string]string)
	for _, label := range labels {
		volumes = append(volumes, &volume{label: label, cfg: &config.Volume{Hooks: config.Hooks{Pre: say, Post: say}}})
	}
	return n, volumes, func() string {
		p, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(p)), "\n", ", ")
	}
}

// TestHooksTakeTurns: while a database is at rest for one snapshot, hooks of another neither rest it again nor let it go on.
func TestHooksTakeTurns(t *testing.T) {
	n, volumes, calls := hooked(t, "graph")
	first, err := n.preHooks(t.Context(), volumes, "first")
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.preHooks(soon, volumes, "second"); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "the hooks of graph") {
		t.Errorf("hooks of a second snapshot beside those of the first: %v", err)
	}
	second := make(chan *hooks)
	go func() {
		h, err := n.preHooks(t.Context(), volumes, "third")
		if err != nil {
			t.Error(err)
		}
		second <- h
	}()
	first.startPost(n, hook.Taken)
	first.wait()
	h := <-second
	h.startPost(n, hook.Failed)
	h.wait()
	if got, want := calls(), "graph pre first, graph post first, graph pre third, graph post third"; got != want {
		t.Errorf("hooks were called %q, want %q", got, want)
	}
}

// TestHooksOfSeveral: two that need the same volumes, named in different orders, never wait for each other.
func TestHooksOfSeveral(t *testing.T) {
	n, volumes, calls := hooked(t, "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	for _, order := range [][]*volume{{volumes[0], volumes[1]}, {volumes[1], volumes[0]}} {
		go func() {
			var err error
			for i := 0; i < 10 && err == nil; i++ {
				var h *hooks
				h, err = n.preHooks(ctx, order, "s")
				h.startPost(n, hook.Taken)
				h.wait()
			}
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := strings.Count(calls(), " pre s"); got != 40 {
		t.Errorf("%d pre hooks were run, want 40", got)
	}
}
