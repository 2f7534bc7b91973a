package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"graphvol/chunkstore/target"
)

// TestFlippedBytes flips each byte of a small object, and those of a longer one that are next to a border, and some between.
func TestFlippedBytes(t *testing.T) {
	ring := newRing(t)
	for _, size := range []int{0, 100, 2*segmentLen + 10} {
		stored := sealed(t, ring, "o", randomBytes(3, size))
		for i := range stored {
			if at := (i - headerLen) % sealedLen; i > 200 && at > 20 && at < segmentLen-20 && i%997 != 0 {
				continue
			}
			for _, bit := range []byte{1, 0x80} {
				p := slices.Clone(stored)
				p[i] ^= bit
				_, err := opened(t, ring, "o", p)
				if i >= 8 && i < 12 && errors.Is(err, ErrNewerFormat) {
					continue // it says that it is of a newer version
				}
				wantAltered(t, fmt.Sprintf("%d bytes, byte %d", size, i), err)
			}
		}
	}
}

// TestOtherLengths cuts a small object at every length, a longer one near its border and now and then, and extends it.
func TestOtherLengths(t *testing.T) {
	ring := newRing(t)
	small := sealed(t, ring, "o", randomBytes(4, 1000))
	for n := range small {
		_, err := opened(t, ring, "o", small[:n])
		wantAltered(t, fmt.Sprintf("small, cut to %d", n), err)
	}
	stored := sealed(t, ring, "o", randomBytes(4, segmentLen+1000))
	for n := range stored {
		if near := n - headerLen - sealedLen; n%97 == 0 || near > -40 && near < 40 {
			_, err := opened(t, ring, "o", stored[:n])
			wantAltered(t, fmt.Sprintf("cut to %d", n), err)
		}
	}
	for _, more := range []int{1, 16, 17, segmentLen, sealedLen, 2 * sealedLen} {
		_, err := opened(t, ring, "o", append(slices.Clone(stored), make([]byte, more)...))
		wantAltered(t, fmt.Sprintf("extended by %d", more), err)
	}
	// A target that cuts while the object is open.
	whole := sealed(t, ring, "o", randomBytes(4, 3*segmentLen))
	for _, limit := range []int64{1, headerLen, headerLen + sealedLen, int64(len(whole)) - 1} {
		_, err := target.Get(t.Context(), New(&memTarget{stored: whole, limit: limit}, ring), "o", 1<<20)
		wantAltered(t, fmt.Sprintf("reads end at %d", limit), err)
	}
}

// TestRearranged puts an object together anew from its own segments and those of others.
func TestRearranged(t *testing.T) {
	ring := newRing(t)
	data := randomBytes(5, 4*segmentLen)
	a, b := sealed(t, ring, "o", data), sealed(t, ring, "o", data)
	segment := func(p []byte, i int) []byte { return p[headerLen+i*sealedLen:][:sealedLen] }
	for name, parts := range map[string][][]byte{
		"swapped":        {a[:headerLen], segment(a, 1), segment(a, 0), segment(a, 2), segment(a, 3)},
		"twice":          {a[:headerLen], segment(a, 0), segment(a, 0), segment(a, 2), segment(a, 3)},
		"left out":       {a[:headerLen], segment(a, 0), segment(a, 2), segment(a, 3)},
		"last first":     {a[:headerLen], segment(a, 3), segment(a, 1), segment(a, 2), segment(a, 0)},
		"last left out":  {a[:headerLen], segment(a, 0), segment(a, 1), segment(a, 2)},
		"another's":      {a[:headerLen], segment(a, 0), segment(b, 1), segment(a, 2), segment(a, 3)},
		"another's head": {b[:headerLen], a[headerLen:]},
	} {
		_, err := opened(t, ring, "o", bytes.Join(parts, nil))
		wantAltered(t, name, err)
	}
	if got, err := opened(t, ring, "o", bytes.Join([][]byte{a[:headerLen], segment(a, 0), segment(a, 1), segment(a, 2), segment(a, 3)}, nil)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("as it was: %v", err)
	}
	_, err := opened(t, ring, "p", a)
	wantAltered(t, "another name", err)
	_, err = opened(t, newRing(t), "o", a)
	wantAltered(t, "another store's key", err)
}

// TestUnverified: a segment that doesn't decrypt gives nothing, those before it are given.
func TestUnverified(t *testing.T) {
	ring := newRing(t)
	data := randomBytes(6, 4*segmentLen)
	stored := sealed(t, ring, "o", data)
	stored[headerLen+sealedLen+5] ^= 1
	o, err := New(&memTarget{stored: stored}, ring).Open(t.Context(), "o")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(data))
	n, err := o.ReadAt(t.Context(), p, 0)
	wantAltered(t, "read", err)
	if n != segmentLen || !bytes.Equal(p[:n], data[:n]) || !bytes.Equal(p[n:], make([]byte, len(p)-n)) {
		t.Errorf("%d bytes", n)
	}
	if n, err := o.ReadAt(t.Context(), p[:segmentLen], 2*segmentLen); err != nil || n != segmentLen {
		t.Errorf("another segment: %d, %v", n, err)
	}
}

// TestSwappedFiles exchanges two objects of equal length on the target. An older version of an object under its own name is what some Put has stored there: it is
// read as such, and that it is old is for the heads to notice, which number and list what there is.
func TestSwappedFiles(t *testing.T) {
	root := t.TempDir()
	tg := New(openDir(t, root), newRing(t))
	put := func(name, data string) {
		if err := target.Put(t.Context(), tg, name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	put("packs/a", "first")
	put("packs/b", "other")
	rename("packs/a", "packs/x")
	rename("packs/b", "packs/a")
	rename("packs/x", "packs/b")
	for _, name := range []string{"packs/a", "packs/b"} {
		_, err := tg.Open(t.Context(), name)
		wantAltered(t, name, err)
	}
	put("packs/a", "old")
	rename("packs/a", "old")
	put("packs/a", "new")
	rename("old", "packs/a")
	if got, err := target.Get(t.Context(), tg, "packs/a", 100); err != nil || string(got) != "old" {
		t.Errorf("an older version: %q, %v", got, err)
	}
}

func TestRotation(t *testing.T) {
	m := openDir(t, t.TempDir())
	first := newRing(t)
	second := rotated(t, first)
	if err := target.Put(t.Context(), New(m, first), "old", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := target.Put(t.Context(), New(m, second), "new", []byte("2")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "1", "new": "2"} {
		if got, err := target.Get(t.Context(), New(m, second), name, 10); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	_, err := target.Get(t.Context(), New(m, first), "new", 10)
	wantAltered(t, "a key that the keyring lacks", err)
}
