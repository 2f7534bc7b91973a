package crypt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

const testStore = "00112233445566778899aabbccddeeff"

func openDir(t testing.TB, root string) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newRing(t testing.TB) *Keyring {
	t.Helper()
	r, err := NewKeyring(testStore)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rotated(t testing.TB, r *Keyring) *Keyring {
	t.Helper()
	r, err := r.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// sealed returns data as it is stored.
func sealed(t testing.TB, ring *Keyring, name string, data []byte) []byte {
	t.Helper()
	m := &memTarget{}
	if err := target.Put(t.Context(), New(m, ring), name, data); err != nil {
		t.Fatal(err)
	}
	return m.stored
}

// opened decrypts what is stored.
func opened(t testing.TB, ring *Keyring, name string, stored []byte) ([]byte, error) {
	return target.Get(t.Context(), New(&memTarget{stored: stored}, ring), name, 1<<40)
}

func wantAltered(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrAltered) || errors.Is(err, os.ErrNotExist) || errors.Is(err, target.ErrUnavailable) || errors.Is(err, io.EOF) {
		t.Errorf("%s: %v, want ErrAltered", what, err)
	}
}

// memTarget is a target with one object, whatever its name.
type memTarget struct {
	target.Target
	stored []byte
	limit  int64 // reads beyond it find nothing; 0 for none
}

func (m *memTarget) String() string { return "memory" }

func (m *memTarget) Put(_ context.Context, _ string, src target.Source, _ target.PutOptions) error {
	m.stored = make([]byte, src.Size())
	if n, err := src.ReadAt(m.stored, 0); n < len(m.stored) {
		return err
	}
	return nil
}

func (m *memTarget) Open(context.Context, string) (target.Object, error) {
	return &memObject{m, bytes.NewReader(m.stored)}, nil
}

type memObject struct {
	m *memTarget
	r *bytes.Reader
}

func (o *memObject) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if limit := o.m.limit; limit > 0 && off+int64(len(p)) > limit {
		n, _ := o.r.ReadAt(p[:max(0, limit-off)], off)
		return n, io.EOF
	}
	return o.r.ReadAt(p, off)
}
func (o *memObject) Size() int64 { return o.r.Size() }
func (*memObject) Close() error  { return nil }

func TestConformance(t *testing.T) {
	targettest.Run(t, func(t *testing.T) target.Target {
		return New(openDir(t, filepath.Join(t.TempDir(), "store")), newRing(t))
	})
}

func TestPassesPlain(t *testing.T) {
	inner := openDir(t, t.TempDir())
	tg := New(inner, newRing(t))
	for _, name := range []string{"store.json", "keys/a.age", "keys/sub/a", "store.jsonx", "keysx", "heads/1"} {
		data := []byte("as it is: " + name)
		if err := target.Put(t.Context(), tg, name, data); err != nil {
			t.Fatal(err)
		}
		if got, err := target.Get(t.Context(), tg, name, 1000); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		raw, err := target.Get(t.Context(), inner, name, 1000)
		if want := Plain(name); err != nil || bytes.Equal(raw, data) != want || want != (name == "store.json" || strings.HasPrefix(name, "keys/")) {
			t.Errorf("%s: stored as it is: %v, want %v; %v", name, !want, want, err)
		}
		if infos, err := tg.List(t.Context(), name); err != nil || infos[0].Size != int64(len(data)) {
			t.Errorf("list %s: %v, %v", name, infos, err)
		}
	}
}

// TestListImpossible: what can't be an object is listed, and Open says what it is.
func TestListImpossible(t *testing.T) {
	inner := openDir(t, t.TempDir())
	tg := New(inner, newRing(t))
	for _, name := range []string{"packs/aa/1", "packs/aa/2"} {
		if err := target.Put(t.Context(), tg, name, []byte("twelve bytes")); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Put(t.Context(), inner, "packs/aa/2", []byte("short")); err != nil {
		t.Fatal(err)
	}
	got, err := tg.List(t.Context(), "packs/")
	if want := []target.Info{{Name: "packs/aa/1", Size: 12}, {Name: "packs/aa/2"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %v, %v, want %v", got, err, want)
	}
	_, err = tg.Open(t.Context(), "packs/aa/2")
	wantAltered(t, "open", err)
	if err == nil || !strings.Contains(err.Error(), "packs/aa/2") {
		t.Errorf("%v doesn't name the object", err)
	}
}

// TestRandomAccess reads ranges of a large object from several goroutines, and compares with the original.
func TestRandomAccess(t *testing.T) {
	data := randomBytes(1, 10<<20+12345)
	tg := New(openDir(t, t.TempDir()), newRing(t))
	if err := target.Put(t.Context(), tg, "o", data); err != nil {
		t.Fatal(err)
	}
	o, err := tg.Open(t.Context(), "o")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	checkRanges(t, target.Reader(t.Context(), o), data)
}

// TestSourceRanges reads ranges of what is stored: the same bytes whoever reads them, and how.
func TestSourceRanges(t *testing.T) {
	plain := bytes.NewReader(randomBytes(2, 3<<20+77))
	pool := newSegmentPool()
	s, err := newSealer(&repositoryKey{1}, makeHeader(1, salt{2}), "n", plain.Size())
	if err != nil {
		t.Fatal(err)
	}
	src := newSource(s, plain, pool)
	all := make([]byte, src.Size())
	if n, err := src.ReadAt(all, 0); n != len(all) || err != nil {
		t.Fatal(n, err)
	}
	checkRanges(t, src, all)
	checkRanges(t, newSource(s, plain, pool), all)
	if n, err := src.ReadAt(make([]byte, 1), src.Size()); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := src.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("before the beginning: accepted")
	}
}

func checkRanges(t *testing.T, r io.ReaderAt, want []byte) {
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 7))
			for i := range 60 {
				off := rnd.IntN(len(want) + 10)
				n := []int{1, 10, 4096, segmentLen, sealedLen, 128 << 10, 1 << 20, 9 << 20}[rnd.IntN(8)]
				if i%3 == 0 {
					off -= off % segmentLen
				}
				p := make([]byte, n)
				got, err := r.ReadAt(p, int64(off))
				exp := want[min(off, len(want)):min(off+n, len(want))]
				if !bytes.Equal(p[:got], exp) || (err == io.EOF) != (len(exp) < n) || (err != nil && err != io.EOF) {
					t.Errorf("%d bytes at %d: %d, %v", n, off, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// flaky gives other bytes, or too few, from the second read on.
type flaky struct {
	bytes.Reader
	size  int64
	reads int
	then  func(p []byte) (int, error)
}

func (f *flaky) Size() int64 { return f.size }
func (f *flaky) ReadAt(p []byte, off int64) (int, error) {
	if f.reads++; f.reads > 1 {
		return f.then(p)
	}
	clear(p)
	return len(p), nil
}

// TestSourceChanges: no nonce encrypts two plaintexts.
func TestSourceChanges(t *testing.T) {
	for name, then := range map[string]func(p []byte) (int, error){
		"other": func(p []byte) (int, error) { p[0] = 1; return len(p), nil },
		"short": func(p []byte) (int, error) { return len(p) / 2, io.EOF },
	} {
		src := &flaky{size: 2 * segmentLen, then: then}
		s, err := newSealer(&repositoryKey{1}, makeHeader(1, salt{2}), "n", src.size)
		if err != nil {
			t.Fatal(err)
		}
		enc := newSource(s, src, newSegmentPool())
		p := make([]byte, sealedLen)
		if _, err := enc.ReadAt(p, headerLen); err != nil {
			t.Fatal(err)
		}
		for _, length := range []int{sealedLen, 100} {
			clear(p)
			n, err := enc.ReadAt(p[:length], headerLen)
			if n != 0 || !errors.Is(err, errSourceChanged) || !bytes.Equal(p, make([]byte, len(p))) {
				t.Errorf("%s, %d bytes: %d, %v", name, length, n, err)
			}
		}
	}
}

// TestOutage: that a target can't be reached says nothing about the object.
func TestOutage(t *testing.T) {
	tg := New(outage{}, newRing(t))
	if _, err := tg.Open(t.Context(), "o"); !errors.Is(err, target.ErrUnavailable) || errors.Is(err, ErrAltered) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

type outage struct{ target.Target }

func (outage) String() string { return "outage" }
func (outage) Open(context.Context, string) (target.Object, error) {
	return outageObject{}, nil
}

type outageObject struct{}

func (outageObject) ReadAt(context.Context, []byte, int64) (int, error) {
	return 0, target.ErrUnavailable
}
func (outageObject) Size() int64  { return 100 }
func (outageObject) Close() error { return nil }
