// Package targettest checks that a target keeps the contract in the documentation of package target.
package targettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"graphvol/chunkstore/target"
)

// RunLocal checks a local target.
func RunLocal(t *testing.T, open func(t *testing.T) target.Local) {
	Run(t, func(t *testing.T) target.Target { return open(t) })
	t.Run("Invisible", func(t *testing.T) { testInvisible(t, open(t)) })
	t.Run("Abort", func(t *testing.T) { testAbort(t, open(t)) })
	t.Run("SyncRemoved", func(t *testing.T) { testSyncRemoved(t, open(t)) })
}

// Run checks a target. open is called once for each part and returns an empty one.
func Run(t *testing.T, open func(t *testing.T) target.Target) {
	for _, c := range []struct {
		name string
		test func(*testing.T, target.Target)
	}{
		{"RoundTrip", testRoundTrip},
		{"Replace", testReplace},
		{"IfAbsent", testIfAbsent},
		{"List", testList},
		{"Remove", testRemove},
		{"Names", testNames},
		{"ReadAt", testReadAt},
		{"Stream", testStream},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// PutByUpload is Put for targets that wrap another one's uploads.
func PutByUpload(ctx context.Context, t target.Local, name string, src target.Source) error {
	u, err := t.Create(ctx)
	if err != nil {
		return err
	}
	if _, err := io.Copy(u, io.NewSectionReader(src, 0, src.Size())); err != nil {
		return errors.Join(err, u.Abort())
	}
	return u.Commit(ctx, name)
}

func put(t *testing.T, tg target.Target, name string, data []byte) {
	t.Helper()
	if err := target.Put(t.Context(), tg, name, data); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
}

func wantContent(t *testing.T, tg target.Target, name string, want []byte) {
	t.Helper()
	got, err := target.Get(t.Context(), tg, name, 1<<30)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s holds %d bytes that differ from the %d put", name, len(got), len(want))
	}
}

func wantMissing(t *testing.T, tg target.Target, name string) {
	t.Helper()
	if _, err := tg.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open %s: %v, want fs.ErrNotExist", name, err)
	}
}

func names(t *testing.T, tg target.Target, prefix string) []string {
	t.Helper()
	infos, err := tg.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	var out []string
	for _, in := range infos {
		out = append(out, in.Name)
	}
	return out
}

func testRoundTrip(t *testing.T, tg target.Target) {
	for i, size := range []int{0, 1, 4096, 1<<20 + 7, 9 << 20} {
		name := fmt.Sprintf("packs/ab/%d.pack", i)
		data := bytes.Repeat([]byte{byte(i), 1, 2}, size/3+1)[:size]
		put(t, tg, name, data)
		wantContent(t, tg, name, data)
	}
}

func testInvisible(t *testing.T, tg target.Local) {
	u, err := tg.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, tg, ""); len(got) != 0 {
		t.Fatalf("an unfinished upload is listed: %v", got)
	}
	if err := u.Commit(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if err := u.Abort(); err != nil {
		t.Fatalf("abort after commit: %v", err)
	}
	wantContent(t, tg, "a/b", []byte("half"))
	if err := u.Commit(t.Context(), "a/c"); err == nil {
		t.Fatal("a second commit was accepted")
	}
}

func testAbort(t *testing.T, tg target.Local) {
	u, err := tg.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(make([]byte, 5<<20)); err != nil {
		t.Fatal(err)
	}
	if err := u.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := u.Abort(); err != nil {
		t.Fatalf("second abort: %v", err)
	}
	if got := names(t, tg, ""); len(got) != 0 {
		t.Fatalf("left after abort: %v", got)
	}
}

func testReplace(t *testing.T, tg target.Target) {
	put(t, tg, "m/x", []byte("first"))
	old, err := tg.Open(t.Context(), "m/x")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	put(t, tg, "m/x", []byte("second one"))
	wantContent(t, tg, "m/x", []byte("second one"))
	p := make([]byte, old.Size())
	if _, err := old.ReadAt(t.Context(), p, 0); err == nil && string(p) != "first" {
		t.Fatalf("an object opened before it was replaced reads %q", p)
	}
}

func testList(t *testing.T, tg target.Target) {
	all := []string{"manifests/1.json", "packs/aa/1.pack", "packs/aa/2.pack", "packs/ab/0.pack", "packsx"}
	for _, n := range slices.Backward(all) {
		put(t, tg, n, []byte(n))
	}
	for prefix, want := range map[string][]string{
		"": all, "packs/": all[1:4], "packs/aa": all[1:3], "packs/aa/": all[1:3], "packs": all[1:], "none/": nil, "manifests/1": all[:1],
	} {
		if got := names(t, tg, prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: %v, want %v", prefix, got, want)
		}
	}
	infos, err := tg.List(t.Context(), "packsx")
	if err != nil || len(infos) != 1 || infos[0].Size != int64(len("packsx")) {
		t.Errorf("list packsx: %v, %v", infos, err)
	}
}

func testRemove(t *testing.T, tg target.Target) {
	put(t, tg, "packs/aa/1.pack", []byte("x"))
	put(t, tg, "packs/aa/2.pack", []byte("x"))
	put(t, tg, "packs/ab/3.pack", []byte("x"))
	for range 2 { // the second time there is nothing
		if err := tg.Remove(t.Context(), "packs/aa/1.pack", "packs/none", "packs/ab/3.pack"); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, tg, "packs/aa/1.pack")
		wantMissing(t, tg, "packs/ab/3.pack")
	}
	if err := tg.Remove(t.Context()); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
	wantContent(t, tg, "packs/aa/2.pack", []byte("x"))
	wantMissing(t, tg, "packs")
	put(t, tg, "packs/aa/1.pack", []byte("y"))
	wantContent(t, tg, "packs/aa/1.pack", []byte("y"))
}

func testSyncRemoved(t *testing.T, tg target.Local) {
	put(t, tg, "packs/aa/1.pack", []byte("x"))
	if err := tg.Remove(t.Context(), "packs/aa/1.pack"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"packs/aa", "nothing"} {
		if err := tg.SyncRemoved(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
}

// testIfAbsent: of many who store under one name, one succeeds, and what it has stored is there.
func testIfAbsent(t *testing.T, tg target.Target) {
	var wg sync.WaitGroup
	var won atomic.Int64
	won.Store(-1)
	for i := range 8 {
		wg.Go(func() {
			err := tg.Put(t.Context(), "heads/1", bytes.NewReader([]byte{byte(i)}), target.PutOptions{IfAbsent: true})
			switch {
			case err == nil && !won.CompareAndSwap(-1, int64(i)):
				t.Errorf("%d and %d have both stored", i, won.Load())
			case err != nil && !errors.Is(err, target.ErrExists):
				t.Errorf("%v, want ErrExists", err)
			}
		})
	}
	wg.Wait()
	wantContent(t, tg, "heads/1", []byte{byte(won.Load())})
	big := bytes.Repeat([]byte("new"), 5<<20)
	if err := tg.Put(t.Context(), "heads/1", bytes.NewReader(big), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrExists) {
		t.Errorf("a long one: %v, want ErrExists", err)
	}
	wantContent(t, tg, "heads/1", []byte{byte(won.Load())})
	if err := tg.Put(t.Context(), "heads/2", bytes.NewReader(big), target.PutOptions{IfAbsent: true}); err != nil {
		t.Error(err)
	}
	wantContent(t, tg, "heads/2", big)
}

func testNames(t *testing.T, tg target.Target) {
	for _, n := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", ".tmp/x", "a/.b", "a b", "a\x00", "ä",
		strings.Repeat("n", 201)} {
		if err := target.Put(t.Context(), tg, n, nil); !errors.Is(err, target.ErrBadName) {
			t.Errorf("put %q: %v, want ErrBadName", n, err)
		}
		if _, err := tg.Open(t.Context(), n); err == nil {
			t.Errorf("open %q was accepted", n)
		}
		if err := tg.Remove(t.Context(), n); err == nil {
			t.Errorf("remove %q was accepted", n)
		}
	}
	put(t, tg, strings.Repeat("n", 200), nil)
}

func testReadAt(t *testing.T, tg target.Target) {
	put(t, tg, "o", []byte("0123456789"))
	o, err := tg.Open(t.Context(), "o")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Size() != 10 {
		t.Fatalf("size %d", o.Size())
	}
	p := make([]byte, 4)
	if n, err := o.ReadAt(t.Context(), p, 3); n != 4 || err != nil || string(p) != "3456" {
		t.Fatalf("read at 3: %d, %v, %q", n, err, p)
	}
	if n, err := o.ReadAt(t.Context(), p, 8); n != 2 || !errors.Is(err, io.EOF) {
		t.Fatalf("read at 8: %d, %v, want 2 and io.EOF", n, err)
	}
}

func testConcurrent(t *testing.T, tg target.Target) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := fmt.Sprintf("packs/%02x/%d.pack", i%3, i)
			data := bytes.Repeat([]byte{byte(i)}, 100<<10)
			if err := target.Put(t.Context(), tg, name, data); err != nil {
				t.Errorf("put %s: %v", name, err)
				return
			}
			if got, err := target.Get(t.Context(), tg, name, 1<<20); err != nil || !bytes.Equal(got, data) {
				t.Errorf("get %s: %d bytes, %v", name, len(got), err)
			}
			if i%2 == 0 {
				if err := tg.Remove(t.Context(), name); err != nil {
					t.Errorf("remove %s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, tg, "packs/"); len(got) != 8 {
		t.Errorf("%d objects are left, want 8: %v", len(got), got)
	}
}
