package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
)

// tidied: while another node still stores its part, nobody deletes the one that a volume has stored already.
func (t *test) tidied() {
	ctx, cancel := t.bounded()
	defer cancel()
	slow := t.other(ctx)
	by := t.Nodes[(slow.number+1)%3]
	v := by.Volumes[0]
	if _, err := by.Snapshot(ctx, "before"); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(slow.Volumes[0].Mount, "large")
	rig.WriteFile(t, large, 64<<20)
	row, err := by.Snapshot(ctx, "shared", "--no-wait")
	slow.Signal(unix.SIGSTOP) // nobody hears that its part is stored
	defer slow.Signal(unix.SIGCONT)
	if err != nil {
		t.Fatal(err)
	}
	state := func(ctx context.Context) string {
		all, err := by.Snapshots(ctx)
		i := slices.IndexFunc(all, func(r Row) bool { return r.ID == row.ID })
		if err != nil || i < 0 {
			return ""
		}
		return all[i].State
	}
	if _, err := v.WaitComplete(ctx, "shared"); err != nil {
		t.Fatal(err)
	}
	if got := state(ctx); got != "cut" {
		t.Fatalf("the snapshot is %s, so it is too late to prove anything", got)
	}
	if _, err := v.Snapshot(ctx, "newest"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Run(ctx, "forget", v.Mount, "--keep-last", "1"); err != nil {
		t.Error(err)
	}
	_, err = v.Run(ctx, "delete", v.Mount, "shared")
	t.failed(err, 1, "part of the cluster's snapshot shared")
	slow.Signal(unix.SIGCONT)
	t.eventually("the snapshot is complete", func(ctx context.Context) bool { return state(ctx) == "complete" })
	if left := t.parts(v); !slices.Contains(strings.Fields(left), "shared") {
		t.Errorf("the snapshot of the cluster is complete, and %s has %q", v.Mount, left)
	}
	if _, err := v.Run(ctx, "delete", v.Mount, "newest"); err != nil {
		t.Error(err)
	}
}
