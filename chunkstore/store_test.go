package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"graphvol/chunkstore/target"
)

// mapLocator is an index in memory.
type mapLocator struct {
	sync.Mutex
	m map[ID]Location
}

func (l *mapLocator) Locate(id ID) (Location, bool, error) {
	l.Lock()
	defer l.Unlock()
	loc, ok := l.m[id]
	return loc, ok, nil
}

func (l *mapLocator) add(chunks []Located) {
	l.Lock()
	defer l.Unlock()
	if l.m == nil {
		l.m = make(map[ID]Location)
	}
	for _, c := range chunks {
		l.m[c.ID] = c.Location
	}
}

type fixture struct {
	*Store
	root string
	loc  *mapLocator
}

func newFixture(t testing.TB, opts Options) *fixture {
	t.Helper()
	f := &fixture{root: filepath.Join(t.TempDir(), "store"), loc: new(mapLocator)}
	tg, err := target.OpenDir(f.root)
	if err != nil {
		t.Fatal(err)
	}
	if f.Store, err = Open(t.Context(), tg, f.loc, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// check is what every test ends with: all packs are whole and hold what the locator says.
func (f *fixture) check(t testing.TB) {
	t.Helper()
	packs, err := f.Packs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[Located]bool)
	for _, p := range packs {
		if err := f.VerifyPack(context.Background(), p.ID); err != nil {
			t.Error(err)
		}
		chunks, err := f.ReadTrailer(context.Background(), p.ID)
		if err != nil {
			t.Error(err)
		}
		for _, c := range chunks {
			there[c] = true
		}
	}
	for id, loc := range f.loc.m {
		if !there[Located{id, loc}] {
			t.Errorf("chunk %s isn't where the index says", id)
		}
	}
}

// store puts all chunks in one seal and tells the locator.
func (f *fixture) store(t testing.TB, chunks ...[]byte) Written {
	t.Helper()
	w := f.NewWriter(t.Context())
	defer w.Close()
	for _, c := range chunks {
		if _, err := w.Put(c); err != nil {
			t.Fatal(err)
		}
	}
	written, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	f.loc.add(written.Chunks)
	return written
}

func (f *fixture) packPath(id PackID) string { return filepath.Join(f.root, id.Object()) }

// randomChunk is half compressible.
func randomChunk(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		if i/512%2 == 0 {
			p[i] = byte(r.Uint32())
		}
	}
	return p
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func TestRoundTrip(t *testing.T) {
	f := newFixture(t, Options{PackSize: 256 << 10}) // a pack is closed after the chunk that fills it, and chunks come in any order
	r := newRand(1)
	var chunks [][]byte
	for _, n := range []int{0, 1, 7, 511, 4096, 128 << 10, 128<<10 - 1, MaxChunk} {
		chunks = append(chunks, randomChunk(r, n), bytes.Repeat([]byte{7}, n))
		noise := make([]byte, n)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		chunks = append(chunks, noise)
	}
	written := f.store(t, chunks...)
	if len(written.Packs) < 2 {
		t.Errorf("%d packs, want several", len(written.Packs))
	}
	buf := make([]byte, 0, MaxChunk)
	for _, want := range chunks {
		got, err := f.Get(t.Context(), Sum(want), buf)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("a chunk of %d bytes came back changed", len(want))
		}
		if len(got) > 0 && &got[0] != &buf[:1][0] {
			t.Errorf("a chunk of %d bytes isn't in the buffer given", len(want))
		}
	}
	if _, err := f.Get(t.Context(), Sum([]byte("other")), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown chunk: %v, want ErrNotFound", err)
	}
	f.check(t)
}

func TestPutTooLarge(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.NewWriter(t.Context())
	defer w.Close()
	if _, err := w.Put(make([]byte, MaxChunk+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

func TestDedupe(t *testing.T) {
	f := newFixture(t, Options{})
	a, b := []byte("chunk a"), []byte("chunk b")
	if w := f.store(t, a, b, a); len(w.Chunks) != 2 {
		t.Errorf("stored %d chunks, want 2", len(w.Chunks))
	}
	if w := f.store(t, a, b); len(w.Chunks) != 0 || len(w.Packs) != 0 || w.StoredBytes != 0 {
		t.Errorf("stored again: %+v", w)
	}
	f.check(t)
}

func TestConcurrentPut(t *testing.T) {
	f := newFixture(t, Options{PackSize: 256 << 10})
	w := f.NewWriter(t.Context())
	defer w.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				// Every chunk is put by two goroutines.
				if _, err := w.Put(randomChunk(newRand(uint64(i*2+g%2)), 3000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	written, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	f.loc.add(written.Chunks)
	if len(written.Chunks) != 400 {
		t.Errorf("%d chunks, want 400", len(written.Chunks))
	}
	var size int64
	for _, p := range written.Packs {
		st, err := os.Stat(f.packPath(p.ID))
		if err != nil || st.Size() != p.Size {
			t.Errorf("pack of %d bytes: %v, %v", p.Size, st, err)
		}
		size += p.Size
	}
	if size != written.StoredBytes {
		t.Errorf("StoredBytes %d, packs have %d", written.StoredBytes, size)
	}
	var readers sync.WaitGroup
	for g := range 4 {
		readers.Go(func() {
			var buf []byte
			for i := range 400 {
				want := randomChunk(newRand(uint64((i+g*100)%400)), 3000)
				got, err := f.Get(t.Context(), Sum(want), buf)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("chunk %d: %v", i, err)
					return
				}
				buf = got
			}
		})
	}
	readers.Wait()
	f.check(t)
}

func TestOverhead(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	r := newRand(3)
	const count = 1000
	var raw int64
	chunks := make([][]byte, count)
	for i := range chunks {
		chunks[i] = make([]byte, 100)
		for j := range chunks[i] {
			chunks[i][j] = byte(r.Uint32())
		}
		raw += 100
	}
	w := f.store(t, chunks...)
	if perChunk := float64(w.StoredBytes-raw-headerLen-nonceLen-footerLen) / count; perChunk > 48 {
		t.Errorf("overhead is %.1f bytes a chunk", perChunk)
	}
}

func TestAbortRemoves(t *testing.T) {
	for _, finish := range []bool{false, true} {
		t.Run(fmt.Sprintf("finish=%v", finish), func(t *testing.T) {
			f := newFixture(t, Options{PackSize: 10 << 10})
			w := f.NewWriter(t.Context())
			defer w.Close()
			for i := range 50 {
				if _, err := w.Put(randomChunk(newRand(uint64(i)), 3000)); err != nil {
					t.Fatal(err)
				}
			}
			if finish {
				if _, err := w.Finish(); err != nil {
					t.Fatal(err)
				}
			}
			w.Abort()
			if _, err := w.Put([]byte("late")); !errors.Is(err, ErrWriterClosed) {
				t.Errorf("put after abort: %v", err)
			}
			if packs, err := f.Packs(t.Context()); err != nil || len(packs) != 0 {
				t.Errorf("left: %v, %v", packs, err)
			}
			if left, err := os.ReadDir(filepath.Join(f.root, ".tmp")); err != nil || len(left) != 0 {
				t.Errorf("left in .tmp: %v, %v", left, err)
			}
		})
	}
}

func TestContextEndsWriter(t *testing.T) {
	f := newFixture(t, Options{PackSize: 10 << 10})
	ctx, cancel := context.WithCancel(t.Context())
	w := f.NewWriter(ctx)
	defer w.Close()
	if _, err := w.Put([]byte("a")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Put([]byte("b")); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v, want context.Canceled", err)
	}
	if _, err := w.Finish(); !errors.Is(err, context.Canceled) {
		t.Errorf("finish: %v, want context.Canceled", err)
	}
	if packs, err := f.Packs(t.Context()); err != nil || len(packs) != 0 {
		t.Errorf("left: %v, %v", packs, err)
	}
}

// TestRawWriter: what is said to be incompressible is stored as it is, and is the same chunk as ever.
func TestRawWriter(t *testing.T) {
	f := newFixture(t, Options{})
	p := bytes.Repeat([]byte("compressible "), 1000)
	w := f.NewWriter(t.Context())
	defer w.Close()
	id, err := w.Raw().Put(p)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.Put(p); err != nil || again != id {
		t.Errorf("put again: chunk %s, %v; want %s", again, err, id)
	}
	written, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	f.loc.add(written.Chunks)
	if n := len(written.Chunks); n != 1 || written.Chunks[0].Length != uint32(len(p))+recordHeader {
		t.Fatalf("%d chunks, the first in a record of %d bytes", n, written.Chunks[0].Length)
	}
	if got, err := f.Get(t.Context(), id, nil); err != nil || !bytes.Equal(got, p) {
		t.Errorf("read back: %d bytes, %v", len(got), err)
	}
	f.check(t)
}
