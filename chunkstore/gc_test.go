package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"graphvol/chunkstore/target"
)

func TestRepack(t *testing.T) {
	f := newFixture(t, Options{})
	keep, drop := randomChunk(newRand(1), 5000), randomChunk(newRand(2), 5000)
	old := f.store(t, keep, drop).Packs[0].ID
	w := f.NewRepackWriter(t.Context())
	defer w.Close()
	if err := f.Repack(t.Context(), old, func(id ID) bool { return id == Sum(keep) }, w); err != nil {
		t.Fatal(err)
	}
	written, err := w.Finish()
	if err != nil || len(written.Chunks) != 1 || written.Packs[0].ID == old {
		t.Fatalf("%+v, %v", written, err)
	}
	// A reader that has located the chunk before it was moved finds it all the same.
	f.Store.loc = &staleOnce{mapLocator: f.loc, stale: f.loc.m[Sum(keep)]}
	delete(f.loc.m, Sum(drop))
	f.loc.add(written.Chunks)
	if err := f.RemovePack(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Get(t.Context(), Sum(keep), nil); err != nil || !bytes.Equal(got, keep) {
		t.Errorf("the kept chunk: %v", err)
	}
	f.check(t)
}

// TestRepackReadsWhatItCopies: of a pack that is mostly garbage little is read, and chunks that aren't neighbours are copied right.
func TestRepackReadsWhatItCopies(t *testing.T) {
	f := newFixture(t, Options{})
	rnd := newRand(3)
	chunks := make([][]byte, 256)
	for i := range chunks {
		chunks[i] = randomChunk(rnd, MaxChunk/6+i)
	}
	old := f.store(t, chunks...).Packs[0]
	kept := map[ID][]byte{}
	for _, i := range []int{0, 70, 71, 75, 140, 255} {
		kept[Sum(chunks[i])] = chunks[i]
	}
	count := &countingTarget{Local: f.target}
	s, err := Open(t.Context(), count, f.loc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := s.NewRepackWriter(t.Context())
	defer w.Close()
	if err := s.Repack(t.Context(), old.ID, func(id ID) bool { return kept[id] != nil }, w); err != nil {
		t.Fatal(err)
	}
	written, err := w.Finish()
	if err != nil || len(written.Chunks) != len(kept) {
		t.Fatalf("%+v, %v", written, err)
	}
	if n := count.read.Load(); n > old.Size/2 {
		t.Errorf("%d bytes of %d were read", n, old.Size)
	}
	f.loc.add(written.Chunks)
	for id, want := range kept {
		if got, err := f.Get(t.Context(), id, nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("a kept chunk: %v", err)
		}
	}
	f.check(t)
}

// countingTarget counts the bytes that are read.
type countingTarget struct {
	target.Local
	read atomic.Int64
}

type countingObject struct {
	target.Object
	read *atomic.Int64
}

func (c *countingTarget) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := c.Local.Open(ctx, name)
	return countingObject{o, &c.read}, err
}

func (c countingObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := c.Object.ReadAt(ctx, p, off)
	c.read.Add(int64(n))
	return n, err
}

// staleOnce answers the first question with an old location.
type staleOnce struct {
	*mapLocator
	stale Location
	asked bool
}

func (s *staleOnce) Locate(id ID) (Location, bool, error) {
	if !s.asked {
		s.asked = true
		return s.stale, true, nil
	}
	return s.mapLocator.Locate(id)
}

func TestRepackRefusesDamage(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	pack := f.store(t, []byte("a"), []byte("b")).Packs[0].ID
	l := f.loc.m[Sum([]byte("a"))]
	f.flip(t, pack, int(l.Offset)+recordHeader)
	for keep, want := range map[string]bool{"a": false, "b": true} {
		w := f.NewRepackWriter(t.Context())
		err := f.Repack(t.Context(), pack, func(id ID) bool { return id == Sum([]byte(keep)) }, w)
		if (err == nil) != want || !want && !errors.Is(err, ErrCorrupt) {
			t.Errorf("keep %s: %v", keep, err)
		}
		w.Close()
	}
}

func TestProtection(t *testing.T) {
	f := newFixture(t, Options{})
	old, other := []byte("stored before"), []byte("nobody asks for it")
	f.store(t, old, other)
	protected := func(p []byte) (yes bool) {
		_ = f.Exclusive(func(protected func(ID) bool) error {
			yes = protected(Sum(p))
			return nil
		})
		return yes
	}
	w := f.NewWriter(t.Context())
	if _, err := w.Put(old); err != nil {
		t.Fatal(err)
	}
	fresh := []byte("fresh")
	if _, err := w.Put(fresh); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.Has(Sum(other)); !ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	if ok, err := w.Has(Sum([]byte("unknown"))); ok || err != nil {
		t.Errorf("has unknown: %v, %v", ok, err)
	}
	written, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	pack := written.Packs[0].ID
	if !protected(old) || !protected(fresh) || !protected(other) || protected([]byte("unknown")) {
		t.Error("protection is wrong while the writer runs")
	}
	if err := f.RemovePack(t.Context(), pack); err == nil || !f.InUse(pack) {
		t.Errorf("a running writer's pack could be removed: %v", err)
	}
	f.loc.add(written.Chunks)
	w.Close()
	if protected(old) || f.InUse(pack) {
		t.Error("protection outlives the writer")
	}
	f.check(t)
}

func (f *fixture) flip(t *testing.T, pack PackID, off int) {
	t.Helper()
	data := readFile(t, f.packPath(pack))
	data[off] ^= 0x40
	f.overwrite(t, pack, data)
}
