package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// filled is a closed index with something of everything.
func filled(t testing.TB) (path string) {
	t.Helper()
	path = testPath(t)
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := pending(t, db, "a")
	pending(t, db, "b")
	err = errors.Join(
		db.PutEpoch(2, slices.Values([]*Dirty{goldenDirty()})),
		db.Complete(Commit{Snapshot: a, Chunks: located(1, 600)}),
		db.AddIntents(context.Background(), 2, Intent{Kind: IntentDir, Ino: 2}),
		db.PutMeta("volume", []byte("x")),
		db.Check(context.Background()),
		db.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Each way of being inconsistent is told.
func TestCheckFinds(t *testing.T) {
	bucket := func(tx *bbolt.Tx, name string) *bbolt.Bucket { return tx.Bucket([]byte(name)) }
	for what, damage := range map[string]func(tx *bbolt.Tx) error{
		"entry": func(tx *bbolt.Tx) error { return bucket(tx, bucketSnapshots).Put(key64(9), []byte("x")) },
		"has the number": func(tx *bbolt.Tx) error {
			return bucket(tx, bucketSnapshots).Put(key64(9), bucket(tx, bucketSnapshots).Get(key64(1)))
		},
		"could be given again": func(tx *bbolt.Tx) error { return bucket(tx, bucketSnapshots).SetSequence(1) },
		"have the name": func(tx *bbolt.Tx) error {
			return errors.Join(bucket(tx, bucketSnapshots).SetSequence(9), writeSnapshot(tx, &Snapshot{ID: "z", Seq: 9, Name: "a", State: StatePending}))
		},
		"have the id": func(tx *bbolt.Tx) error {
			s, err := readSnapshots(tx)
			s[0].Seq, s[0].Name = 9, ""
			return errors.Join(err, bucket(tx, bucketSnapshots).SetSequence(9), writeSnapshot(tx, &s[0]))
		},
		"clashes": func(tx *bbolt.Tx) error {
			return errors.Join(bucket(tx, bucketSnapshots).SetSequence(1<<15), writeSnapshot(tx, &Snapshot{ID: "z", Seq: 1 << 15, State: StateFailed}))
		},
		"of epoch 2": func(tx *bbolt.Tx) error {
			return bucket(tx, bucketEpochs).Bucket(key64(2)).Put(key64(12), []byte("broken"))
		},
		"is said to have": func(tx *bbolt.Tx) error {
			k, v := bucket(tx, bucketPacks).Cursor().First()
			return bucket(tx, bucketPacks).Put(k, binary.BigEndian.AppendUint64(slices.Clone(v[:16]), 3))
		},
		"not listed": func(tx *bbolt.Tx) error {
			k, _ := bucket(tx, bucketPacks).Cursor().First()
			return bucket(tx, bucketPacks).Delete(k)
		},
		"row of": func(tx *bbolt.Tx) error { return bucket(tx, bucketChunks).Put(make([]byte, 32), []byte{1}) },
	} {
		db, err := Open(filled(t), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.update("test", damage); err != nil {
			t.Fatal(err)
		}
		err = db.Check(t.Context())
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckEndsWithContext(t *testing.T) {
	db := open(t, testPath(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// Whatever happens to the file, Open and Check tell of it or the index works; they don't take the process with them.
func TestDamagedFile(t *testing.T) {
	good, err := os.ReadFile(filled(t))
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(good, "\x00")) // bbolt makes the file larger than it needs
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	refused, found := 0, 0
	for range 60 {
		bad := slices.Clone(good)
		for range 1 + r.IntN(20) {
			at := r.IntN(used)
			if r.IntN(4) > 0 { // the beginning of a page has what can mislead: its kind, counts and offsets
				at = at&^4095 + r.IntN(80)
			}
			bad[at] ^= 1 << r.IntN(8)
		}
		if r.IntN(8) == 0 {
			bad = bad[:r.IntN(used)]
		}
		path := testPath(t)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path, Options{})
		if err != nil {
			refused++
			continue
		}
		if db.Check(t.Context()) != nil {
			found++
			_ = db.Close()
			continue
		}
		_, _ = db.Snapshots()
		_ = db.LoadEpoch(2, func(*Dirty) error { return nil })
		_ = db.Relocate(located(2, 100), nil)
		_ = db.PutEpoch(3, slices.Values([]*Dirty{goldenDirty()}))
		_ = db.Close()
	}
	t.Logf("60 damaged files: %d refused, damage told of %d", refused, found)
	if refused+found == 0 {
		t.Error("no damage was told of")
	}
}

func FuzzPages(f *testing.F) {
	good, err := os.ReadFile(filled(f))
	if err != nil {
		f.Fatal(err)
	}
	const pageSize = 4096
	good = good[:pageSize*20]
	f.Add([]byte{}, uint16(0), uint16(5))
	f.Add(good[10*pageSize:10*pageSize+200], uint16(3*pageSize), uint16(10))
	f.Fuzz(func(t *testing.T, patch []byte, at, root uint16) {
		file := slices.Clone(good)
		copy(file[int(at)%len(file):], patch)
		w := pageWalk{
			file: bytes.NewReader(file), pageSize: pageSize, pages: uint64(len(file) / pageSize), seen: make(map[uint64]bool),
			check: &checker{ctx: t.Context()},
		}
		w.page(uint64(root)%(w.pages+2), nil, 0)
		if len(w.seen) > int(w.pages) {
			t.Fatalf("%d pages seen", len(w.seen))
		}
	})
}
