package remote

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

func TestSync(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	r := New(f.config(copied))
	sync := func(want Done) {
		t.Helper()
		done, err := r.Sync(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want.Bytes = done.Bytes; done != want {
			t.Errorf("done %+v, want %+v", done, want)
		}
		f.same(copied)
	}
	sync(Done{Packs: 3, Snapshots: 1})
	second := f.snapshot()
	f.snapshot()
	sync(Done{Packs: 6, Snapshots: 3})
	sync(Done{Snapshots: 3})
	f.remove(second)
	sync(Done{Snapshots: 2, Removed: 1})
	f.prune()
	done, err := r.Sync(t.Context(), Options{})
	if err != nil || done.Packs == 0 || done.Removed != 9 {
		t.Errorf("%+v, %v", done, err)
	}
	f.same(copied)
	r = New(f.config(copied)) // another process
	sync(Done{Snapshots: 2})
}

// TestGrace: what a reader of a deleted snapshot may need stays for a while.
func TestGrace(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	first := f.snapshot()
	c := f.config(copied)
	c.Grace = time.Hour
	_, err := New(c).Sync(t.Context(), Options{})
	f.must(err)
	before, err := copied.List(t.Context(), "packs/")
	f.must(err)
	f.snapshot()
	f.remove(first)
	f.prune()
	for range 2 {
		_, err = New(c).Sync(t.Context(), Options{})
		f.must(err)
		for _, in := range before {
			if _, err := copied.Open(t.Context(), in.Name); err != nil {
				t.Errorf("removed too early: %v", err)
			}
		}
		f.check(copied)
	}
	_, err = New(f.config(copied)).Sync(t.Context(), Options{}) // without grace
	f.must(err)
	f.same(copied)
}

// cut is a target that fails from the n-th call on.
type cut struct {
	target.Target
	left atomic.Int64
}

var errCut = errors.New("power is gone")

func (c *cut) spend() error {
	if c.left.Add(-1) < 0 {
		return errCut
	}
	return nil
}

func (c *cut) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := c.spend(); err != nil {
		return err
	}
	if err := c.Target.Put(ctx, name, src, o); err != nil {
		return err
	}
	return c.spend() // it may be there although it failed
}

func (c *cut) Open(ctx context.Context, name string) (target.Object, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.Target.Open(ctx, name)
}

func (c *cut) List(ctx context.Context, prefix string) ([]target.Info, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.Target.List(ctx, prefix)
}

func (c *cut) Remove(ctx context.Context, names ...string) error {
	for _, n := range names {
		if err := c.spend(); err != nil {
			return err
		}
		if err := c.Target.Remove(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// TestCut fails call 0, 1, 2, … of the target in a round that puts, announces and removes. At each moment the newest head lists whole snapshots only, and
// the round after it brings everything up to date.
func TestCut(t *testing.T) {
	for n := int64(0); ; n++ {
		f, copied := newFixture(t), copyDir(t)
		first := f.snapshot()
		f.snapshot()
		if n%2 == 0 { // else the remote is a new one
			_, err := New(f.config(copied)).Sync(t.Context(), Options{})
			f.must(err)
		}
		f.remove(first)
		f.prune()
		f.snapshot()
		c := &cut{Target: copied}
		c.left.Store(n / 2)
		_, err := New(f.config(c)).Sync(t.Context(), Options{})
		if err != nil && !errors.Is(err, errCut) && !errors.Is(err, ErrTaken) {
			t.Fatalf("call %d: %v", n, err)
		}
		f.check(copied)
		if _, rerr := New(f.config(copied)).Sync(t.Context(), Options{}); rerr != nil {
			t.Fatalf("after call %d had failed: %v", n, rerr)
		}
		f.same(copied)
		if err == nil && n%2 == 1 {
			if n < 20 {
				t.Errorf("only %d calls", n)
			}
			return
		}
	}
}

// meddler does something before the first pack is put.
type meddler struct {
	target.Target
	meddle func()
	done   atomic.Bool
}

func (m *meddler) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if strings.HasPrefix(name, "packs/") && m.done.CompareAndSwap(false, true) {
		m.meddle()
	}
	return m.Target.Put(ctx, name, src, o)
}

// TestPrunedMeanwhile: packs are pruned and a snapshot is deleted while a round puts them.
func TestPrunedMeanwhile(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	first := f.snapshot()
	f.snapshot()
	m := &meddler{Target: copied, meddle: func() {
		f.remove(first)
		f.prune()
	}}
	c := f.config(m)
	c.Parallel = 1
	r := New(c)
	_, err := r.Sync(t.Context(), Options{})
	f.must(err)
	if !m.done.Load() {
		t.Error("nothing was pruned")
	}
	f.check(copied)
	_, err = r.Sync(t.Context(), Options{})
	f.must(err)
	f.same(copied)
}

// TestDamagedPack: damage isn't copied, and no snapshot that may need it is announced.
func TestDamagedPack(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	_, err := New(f.config(copied)).Sync(t.Context(), Options{})
	f.must(err)
	f.snapshot()
	packs, err := f.db.PackIDs()
	f.must(err)
	bad := packs[len(packs)-1].Object()
	f.flip(bad)
	_, err = New(f.config(copied)).Sync(t.Context(), Options{})
	if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "verify") {
		t.Errorf("%v, want one that names %s", err, bad)
	}
	if _, err := copied.Open(t.Context(), bad); err == nil {
		t.Error("the damaged pack was copied")
	}
	if _, err := copied.Open(t.Context(), packs[len(packs)-2].Object()); err != nil {
		t.Errorf("a whole pack wasn't: %v", err)
	}
	if ids := f.check(copied); len(ids) != 1 {
		t.Errorf("the head lists %v", ids)
	}
}

func TestProgress(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	c := f.config(copied)
	c.Parallel = 1
	var last, all int64
	done, err := New(c).Sync(t.Context(), Options{Progress: func(done, total int64) {
		if done < last {
			t.Errorf("%d after %d", done, last)
		}
		last, all = done, total
	}})
	f.must(err)
	if last != all || last == 0 || last > done.Bytes {
		t.Errorf("%d of %d bytes at the end, %d were put", last, all, done.Bytes)
	}
}
