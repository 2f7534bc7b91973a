package blockcache

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dir(t *testing.T) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func cached(t *testing.T, inner target.Target, o Options) *Target {
	t.Helper()
	o.Prefix = "packs/"
	c, err := New(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConformance(t *testing.T) {
	targettest.Run(t, func(t *testing.T) target.Target { return cached(t, dir(t), Options{Dir: t.TempDir()}) })
}

// counted counts reads of objects, and fails them while err is set.
type counted struct {
	target.Target
	reads atomic.Int64
	bytes atomic.Int64
	err   atomic.Pointer[error]
}

type countedObject struct {
	target.Object
	c *counted
}

func (c *counted) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := c.Target.Open(ctx, name)
	return &countedObject{o, c}, err
}

func (o *countedObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	o.c.reads.Add(1)
	o.c.bytes.Add(int64(len(p)))
	if err := o.c.err.Load(); err != nil {
		return 0, *err
	}
	return o.Object.ReadAt(ctx, p, off)
}

func random(n int) []byte {
	p, rng := make([]byte, n), rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(p)
	return p
}

func open(t *testing.T, c target.Target, name string) target.Object {
	t.Helper()
	o, err := c.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func put(t *testing.T, d target.Target, name string, p []byte) {
	t.Helper()
	if err := target.Put(t.Context(), d, name, p); err != nil {
		t.Fatal(err)
	}
}

// TestRandomReads compares reads at random places, by several readers, with what is there.
func TestRandomReads(t *testing.T) {
	d := dir(t)
	want := random(9<<20 + 12345)
	put(t, d, "packs/x", want)
	c := cached(t, d, Options{Memory: 2 << 20, Dir: t.TempDir(), Disk: 3 << 20})
	o := open(t, c, "packs/x")
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 1))
			for range 300 {
				p := make([]byte, rng.IntN(1<<20))
				off := rng.Int64N(int64(len(want)) + 100)
				n, err := o.ReadAt(context.Background(), p, off)
				rest := want[min(off, int64(len(want))):]
				if n != min(len(p), len(rest)) || !bytes.Equal(p[:n], rest[:n]) || (n < len(p)) != errors.Is(err, io.EOF) {
					t.Errorf("%d at %d: %d, %v", len(p), off, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if c.memory.mu.bytes > 2<<20 || c.disk.mu.bytes > 3<<20 {
		t.Errorf("%d bytes in memory, %d on disk", c.memory.mu.bytes, c.disk.mu.bytes)
	}
	var size int64
	list, err := os.ReadDir(c.disk.dir)
	for _, e := range list {
		if st, err := e.Info(); err == nil {
			size += st.Size()
		}
	}
	if err != nil || size != c.disk.mu.bytes {
		t.Errorf("%d bytes of files, %d are known; %v", size, c.disk.mu.bytes, err)
	}
}

// TestReadingOn: who reads an object from begin to end makes few requests, and who reads here and there doesn't read much else.
func TestReadingOn(t *testing.T) {
	d := dir(t)
	put(t, d, "packs/x", random(32<<20))
	in := &counted{Target: d}
	o := open(t, cached(t, in, Options{}), "packs/x")
	p := make([]byte, 128<<10)
	for off := int64(0); off < o.Size(); off += int64(len(p)) {
		if _, err := o.ReadAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	if n, b := in.reads.Load(), in.bytes.Load(); n > 12 || b != o.Size() {
		t.Errorf("%d requests for %d bytes, to read %d", n, b, o.Size())
	}
	in.reads.Store(0)
	in.bytes.Store(0)
	other := open(t, cached(t, in, Options{}), "packs/x")
	for i := range int64(10) {
		if _, err := other.ReadAt(t.Context(), p, (i*7%10)<<21); err != nil {
			t.Fatal(err)
		}
	}
	if n, b := in.reads.Load(), in.bytes.Load(); n != 10 || b != 10*blockSize {
		t.Errorf("%d requests for %d bytes, for 10 places", n, b)
	}
}

// sealer makes what encrypts blocks on disk.
func sealer(t *testing.T, key byte) cipher.AEAD {
	t.Helper()
	b, err := aes.NewCipher(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestDisk: a process reads what an earlier one has kept, unless it was damaged.
func TestDisk(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testDisk(t, nil) })
	t.Run("sealed", func(t *testing.T) { testDisk(t, sealer(t, 1)) })
}

// TestSealed: what is on disk doesn't show what was read, is of no use to another key, and doesn't stay when the form changes.
func TestSealed(t *testing.T) {
	d, cacheDir := dir(t), filepath.Join(t.TempDir(), "cache")
	want := bytes.Repeat([]byte("secret"), 200_000)
	put(t, d, "packs/x", want)
	in := &counted{Target: d}
	for _, seal := range []cipher.AEAD{nil, sealer(t, 1), sealer(t, 2), nil} {
		in.reads.Store(0)
		got, err := target.Get(t.Context(), cached(t, in, Options{Dir: cacheDir, Seal: seal}), "packs/x", 1<<30)
		if err != nil || !bytes.Equal(got, want) || in.reads.Load() == 0 {
			t.Fatalf("%d bytes in %d requests, %v", len(got), in.reads.Load(), err)
		}
		list, err := filepath.Glob(filepath.Join(cacheDir, "*"))
		if err != nil || len(list) != 3 {
			t.Fatalf("%v, %v", list, err)
		}
		for _, path := range list {
			p, err := os.ReadFile(path)
			if err != nil || bytes.Contains(p, []byte("secret")) != (seal == nil) {
				t.Errorf("%s shows what was read: %v, %v", path, seal != nil, err)
			}
		}
	}
}

func testDisk(t *testing.T, seal cipher.AEAD) {
	d := dir(t)
	want := random(3 << 20)
	put(t, d, "packs/x", want)
	in := &counted{Target: d}
	cacheDir := filepath.Join(t.TempDir(), "cache")
	read := func() {
		t.Helper()
		in.reads.Store(0)
		got, err := target.Get(t.Context(), cached(t, in, Options{Dir: cacheDir, Seal: seal}), "packs/x", 1<<30)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	read()
	read()
	if n := in.reads.Load(); n != 0 {
		t.Errorf("%d requests for what is on disk", n)
	}
	list, err := os.ReadDir(cacheDir)
	if err != nil || len(list) != 6 {
		t.Fatalf("%v, %v", list, err)
	}
	path := func(i int) string { return filepath.Join(cacheDir, list[i].Name()) }
	p, err := os.ReadFile(path(0))
	if err != nil {
		t.Fatal(err)
	}
	p[len(p)/2] ^= 1
	err = errors.Join(os.WriteFile(path(0), p, 0o600), os.Truncate(path(1), 100), os.Rename(path(2), path(3))) // the last one is another block
	if err != nil {
		t.Fatal(err)
	}
	read()
	if n := in.reads.Load(); n == 0 {
		t.Error("damaged blocks were not read anew")
	}
	if err := os.WriteFile(filepath.Join(cacheDir, "new-1234"), []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	read()
	if _, err := os.Stat(filepath.Join(cacheDir, "new-1234")); !os.IsNotExist(err) {
		t.Errorf("what a crash left is still there: %v", err)
	}
}

// TestErrors: an error isn't kept, and one who is called off doesn't take others with him.
func TestErrors(t *testing.T) {
	d := dir(t)
	put(t, d, "packs/x", random(1<<20))
	in := &counted{Target: d}
	c := cached(t, in, Options{})
	o := open(t, c, "packs/x")
	outage := fmt.Errorf("away: %w", target.ErrUnavailable)
	in.err.Store(&outage)
	if n, err := o.ReadAt(t.Context(), make([]byte, 10), 0); n != 0 || !errors.Is(err, target.ErrUnavailable) {
		t.Errorf("%d, %v", n, err)
	}
	in.err.Store(nil)
	if n, err := o.ReadAt(t.Context(), make([]byte, 10), 0); n != 10 || err != nil {
		t.Errorf("afterwards: %d, %v", n, err)
	}
	f, mine := c.join(blockKey{"packs/x", 1})
	if !mine {
		t.Fatal("somebody reads")
	}
	got := make(chan error)
	go func() {
		_, err := o.ReadAt(context.Background(), make([]byte, 10), blockSize)
		got <- err
	}()
	f.err = context.Canceled
	c.land(blockKey{"packs/x", 1}, f)
	if err := <-got; err != nil {
		t.Errorf("another reader was called off, and this one got %v", err)
	}
}
