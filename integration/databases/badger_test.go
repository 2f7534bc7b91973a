package databases

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"graphvol/integration/databases/graphdb"
)

const graphNodes, graphEdges = 20_000, 3

func open(t *testing.T, dir string, sync bool) *graphdb.Graph {
	t.Helper()
	g, err := graphdb.Open(dir, sync)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() }) // a second Close does nothing
	return g
}

func check(t *testing.T, g *graphdb.Graph) graphdb.Facts {
	t.Helper()
	f, err := g.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestBadgerAtRest: after each change a snapshot; every one, copied out and opened, holds what the store held.
func TestBadgerAtRest(t *testing.T) {
	onSubjects(t, func(t *testing.T, s subject) {
		g := open(t, s.dir(), false)
		if err := g.Load(t.Context(), graphNodes, graphEdges, 1); err != nil {
			t.Fatal(err)
		}
		want := map[string]graphdb.Facts{}
		for i := range 4 {
			name := fmt.Sprintf("s%d", i)
			want[name] = check(t, g)
			if !s.live() {
				if err := g.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			s.snapshot(t, name)
			if err := g.Change(t.Context(), graphNodes, graphNodes/100, uint64(i+10)); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		s.restart(t)
		for name, w := range want {
			copied := open(t, restored(t, s, name), false)
			if got := check(t, copied); got != w {
				t.Errorf("%s: %d nodes, %d edges, digest %.8x; want %d, %d, %.8x", name, got.Nodes, got.Edges, got.Sum,
					w.Nodes, w.Edges, w.Sum)
			}
			if err := copied.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestBadgerAtWork: a writer commits, synced, while snapshots are taken; each snapshot opens, is consistent, and
// holds at least the commits that had returned when it was asked for.
func TestBadgerAtWork(t *testing.T) {
	onSubjects(t, func(t *testing.T, s subject) {
		if !s.live() {
			t.Skip("a copy of files in change is no snapshot")
		}
		g := open(t, s.dir(), true)
		if err := g.Load(t.Context(), graphNodes, graphEdges, 1); err != nil {
			t.Fatal(err)
		}
		var returned atomic.Uint64
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				n := returned.Load() + 1
				if err := g.Commit(n, graphNodes); err != nil {
					done <- err
					return
				}
				returned.Store(n)
			}
			done <- nil
		}()
		least := map[string]uint64{}
		for i := range 5 {
			name := fmt.Sprintf("s%d", i)
			least[name] = returned.Load()
			s.snapshot(t, name)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for name, w := range least {
			f := check(t, open(t, restored(t, s, name), false))
			t.Logf("%s: %d commits, of which %d had returned before", name, f.Commits, w)
			if f.Commits < w || f.Nodes != graphNodes {
				t.Errorf("%s: %d commits and %d nodes, want at least %d and exactly %d", name, f.Commits, f.Nodes, w, graphNodes)
			}
		}
	})
}
