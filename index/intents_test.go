package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func intents(t testing.TB, db *DB, epoch uint64) []Intent {
	t.Helper()
	in, err := db.Intents(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestIntents(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	want := []Intent{
		{Kind: IntentAll}, {Kind: IntentRegion, Ino: 5, Gen: 1 << 63, Region: 0}, {Kind: IntentRegion, Ino: 5, Gen: 1 << 63, Region: 1<<32 - 1},
		{Kind: IntentDir, Ino: 1 << 60},
	}
	for range 3 {
		for _, n := range want {
			if err := db.AddIntents(t.Context(), 7, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := db.intents.mu.syncs; n != uint64(len(want)) {
		t.Errorf("%d syncs for %d intents, each announced three times", n, len(want))
	}
	var many []Intent
	for i := range uint32(5000) { // more than the file has room for at first
		many = append(many, Intent{Kind: IntentRegion, Ino: 9, Region: i})
	}
	if err := db.AddIntents(t.Context(), 8, many...); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := intents(t, db, 7); !slices.Equal(got, want) {
			t.Fatal(got)
		}
		if got := intents(t, db, 8); !slices.Equal(got, many) {
			t.Fatalf("%d intents", len(got))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, path)
	}
	size := db.intents.mu.file.frames
	for n := range uint64(5) { // dropped frames are used again
		complete(t, db, 8+n)
		if err := db.AddIntents(t.Context(), 9+n, many...); err != nil {
			t.Fatal(err)
		}
	}
	if db.intents.mu.file.frames != size {
		t.Errorf("the file grew from %d to %d frames", size, db.intents.mu.file.frames)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	for _, n := range []uint64{7, 8, 12} { // the snapshot of an epoch has the changes of those before
		if a := intents(t, db, n); len(a) != 0 {
			t.Errorf("%d intents of the sealed epoch %d", len(a), n)
		}
	}
	if b := intents(t, db, 13); !slices.Equal(b, many) {
		t.Fatal(len(b))
	}
	if err := db.AddIntents(t.Context(), 14, want...); err != nil {
		t.Fatal(err)
	}
	db.DropIntents(13)
	if a, b := intents(t, db, 13), intents(t, db, 14); len(a) != 0 || !slices.Equal(b, want) {
		t.Error("intents of sealed epochs stay, or others go", len(a), len(b))
	}
	if err := db.AddIntents(t.Context(), 0, want...); err == nil {
		t.Error("epoch 0 is none")
	}
	if err := db.AddIntents(t.Context(), 3); err != nil {
		t.Error(err)
	}
}

// complete makes a snapshot complete that needs an epoch no more.
func complete(t *testing.T, db *DB, epoch uint64) {
	t.Helper()
	s := pending(t, db, "")
	s.Epoch = epoch
	if err := db.Complete(Commit{Snapshot: s}); err != nil {
		t.Fatal(err)
	}
}

// Many callers share syncs, one that gives up takes nobody along, and Close leaves no goroutine.
func TestGroupCommit(t *testing.T) {
	before := runtime.NumGoroutine()
	path := testPath(t)
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const callers, each = 64, 20
	var wg sync.WaitGroup
	start := make(chan struct{})
	for c := range uint64(callers) {
		wg.Go(func() {
			<-start
			for n := range uint32(each) {
				ctx, cancel := context.WithCancel(t.Context())
				if c%4 == 0 && n%2 == 0 {
					go cancel()
				}
				err := db.AddIntents(ctx, 1+c%3, Intent{Kind: IntentRegion, Ino: c, Region: n})
				if err != nil && (c%4 != 0 || !errors.Is(err, context.Canceled)) {
					t.Errorf("caller %d: %v", c, err)
				}
				cancel()
			}
		})
	}
	close(start)
	wg.Wait()
	if n := db.intents.mu.syncs; n > callers*each/2 {
		t.Errorf("%d syncs for %d intents of %d callers", n, callers*each, callers)
	} else {
		t.Logf("%d syncs for %d intents", n, callers*each)
	}
	copied := open(t, copyIndex2(t, db, path))
	for _, db := range []*DB{db, copied} {
		for c := range uint64(callers) {
			for n := range uint32(each) {
				in := Intent{Kind: IntentRegion, Ino: c, Region: n}
				if (c%4 != 0 || n%2 != 0) && !slices.Contains(intents(t, db, 1+c%3), in) {
					t.Fatalf("%+v was acknowledged and isn't there", in)
				}
			}
		}
	}
	if err := errors.Join(copied.Close(), db.Close(), db.Close()); err != nil && !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := db.AddIntents(t.Context(), 1, Intent{Kind: IntentAll}); !errors.Is(err, ErrClosed) {
		t.Errorf("added after Close: %v", err)
	}
	wg.Wait()
	for n := 0; runtime.NumGoroutine() > before; n++ { // those that cancel may still be ending
		if n > 1_000_000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

// copyIndex2 copies the index while it is open.
func copyIndex2(t *testing.T, db *DB, path string) string {
	t.Helper()
	db.write.Lock()
	defer db.write.Unlock()
	return copyIndex(t, path)
}

func TestIntentsLost(t *testing.T) {
	for what, damage := range map[string]func(string) error{
		"removed": os.Remove,
		"cut":     func(p string) error { return os.Truncate(p, 100) },
		"header":  func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{1}, 2048), 0o600) },
	} {
		path := testPath(t)
		db := open(t, path)
		if err := errors.Join(db.AddIntents(t.Context(), 4, Intent{Kind: IntentDir, Ino: 1}), db.Close(), damage(IntentPath(path))); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it isn't forgotten by opening
			db = open(t, path)
			if got := intents(t, db, 4); !slices.Equal(got, []Intent{{Kind: IntentAll}}) {
				t.Errorf("%s: %v", what, got)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		db = open(t, path)
		db.DropIntents(4) // of a snapshot from before the loss
		if len(intents(t, db, 5)) != 1 {
			t.Errorf("%s: the loss is forgotten", what)
		}
		complete(t, db, 4)
		if len(intents(t, db, 5)) != 0 {
			t.Errorf("%s: nothing is lost any more", what)
		}
	}
}

func TestIntentsTorn(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	for ino := range uint64(3) {
		if err := db.AddIntents(t.Context(), 4, Intent{Kind: IntentDir, Ino: ino}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(IntentPath(path))
	if err != nil {
		t.Fatal(err)
	}
	b[3*intentFrame+100]++ // the third
	if err := os.WriteFile(IntentPath(path), b, 0o600); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if got := intents(t, db, 4); len(got) != 2 {
		t.Fatal(got)
	}
	newer := bytes.Clone(b)
	newer[12]++
	copy(newer, binary32(checksum(newer[4:intentFrame])))
	if err := errors.Join(db.Close(), os.WriteFile(IntentPath(path), newer, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer intents: %v", err)
	}
}

func binary32(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }

// When intents can't be stored, the caller learns it, every time.
func TestIntentsFail(t *testing.T) {
	db, err := Open(testPath(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.intents.mu.file.f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := db.AddIntents(t.Context(), 1, Intent{Kind: IntentDir, Ino: 1}); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("stored in a closed file: %v", err)
		}
	}
	if got := intents(t, db, 1); len(got) != 0 {
		t.Fatal(got)
	}
	if err := db.Close(); !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
}

func BenchmarkAddIntents(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			db := open(b, testPath(b))
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			var mu sync.Mutex
			n := uint64(0)
			add := func() error {
				mu.Lock()
				n++
				ino := n
				mu.Unlock()
				return db.AddIntents(context.Background(), 1+ino/1000, Intent{Kind: IntentDir, Ino: ino})
			}
			if callers == 1 {
				for b.Loop() {
					if err := add(); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := add(); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
