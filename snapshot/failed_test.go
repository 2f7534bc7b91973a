package snapshot

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"graphvol/index"
)

// TestManyFailures: the catalogue keeps the newest of many failed snapshots, and all others.
func TestManyFailures(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 40)))
	kept := seal(t, r, v.barrier(true))
	var last index.Snapshot
	for range keptFailed {
		s, err := r.Begin("", BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Abandon(s, errors.New("for the test")); err != nil {
			t.Fatal(err)
		}
		last = s
	}
	count := func() (n int) {
		all, err := r.Snapshots()
		if err != nil || all[0].ID != kept.ID {
			t.Fatal(all, err)
		}
		for _, s := range all {
			if s.State == index.StateFailed {
				n++
			}
		}
		return n
	}
	if n := count(); n != keptFailed {
		t.Fatalf("%d failed snapshots are listed, want %d", n, keptFailed)
	}
	s, err := r.Begin("", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("nobody wants it"))
	if _, err := r.Seal(ctx, s, v.barrier(false), nil); err == nil {
		t.Fatal("a seal without time succeeds")
	}
	if got, err := r.Resolve(s.ID); err != nil || !strings.Contains(got.Error, "nobody wants it") {
		t.Errorf("%q, %v: the reason is missing", got.Error, err)
	}
	if n := count(); n != keptFailed*9/10 {
		t.Errorf("%d failed snapshots are listed, want %d", n, keptFailed*9/10)
	}
	for _, id := range []string{last.ID, s.ID} {
		if _, err := r.Resolve(id); err != nil {
			t.Error("one of the newest:", err)
		}
	}
	prune(t, r) // no manifest is unknown
	checkWhole(t, r)
}
