package chunkstore

import (
	"errors"
	"os"
	"testing"
)

func TestVerifiedSetForgetsTheOldest(t *testing.T) {
	const limit = 8
	v := NewVerifiedSet[int](limit)
	for k := range 100 {
		v.Add(k)
		known := 0
		for i := range 100 {
			if v.Has(i) {
				known++
			}
		}
		if !v.Has(k) || known > limit || k >= limit && known < limit/2 {
			t.Fatalf("after %d keys %d are known, the last: %v", k+1, known, v.Has(k))
		}
	}
}

// TestReread: a record whose bytes have changed is found out at the first reading by its hash, and at any later one by its checksum.
func TestReread(t *testing.T) {
	f := newFixture(t, Options{})
	want := randomChunk(newRand(3), 128<<10)
	f.store(t, want)
	id := Sum(want)
	read := func() error {
		got, err := f.Reread(t.Context(), id, nil)
		if err == nil && Sum(got) != id {
			t.Fatal("wrong bytes were served")
		}
		return err
	}
	for range 2 {
		if err := read(); err != nil {
			t.Fatal(err)
		}
	}
	loc := f.loc.m[id]
	path := f.packPath(loc.Pack)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte{}, whole...)
	broken[loc.Offset+loc.Length/2] ^= 1
	rewrite(t, path, broken)
	if err := read(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged record that was read before: %v, want ErrCorrupt", err)
	}
	rewrite(t, path, whole)
	if err := read(); err != nil {
		t.Error(err)
	}
}

// rewrite changes a file in place, so that whoever has it open sees it.
func rewrite(t *testing.T, path string, p []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
}
