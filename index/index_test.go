package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"graphvol/chunkstore"
)

// open opens an index that is checked and closed when the test ends.
func open(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Check(context.Background()); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("check: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func testPath(t testing.TB) string { return filepath.Join(t.TempDir(), "index.db") }

func pending(t testing.TB, db *DB, name string) Snapshot {
	t.Helper()
	s := Snapshot{Name: name, Kind: KindFull, Epoch: 1}
	if err := db.AddPending(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// located returns n chunks in packs of 500, unsorted.
func located(seed uint64, n int) []chunkstore.Located {
	r := rand.New(rand.NewPCG(seed, 0))
	all := make([]chunkstore.Located, n)
	var pack chunkstore.PackID
	for i := range all {
		if i%500 == 0 {
			binary.BigEndian.PutUint64(pack[:], r.Uint64())
		}
		for k := 0; k < 32; k += 8 {
			binary.BigEndian.PutUint64(all[i].ID[k:], r.Uint64())
		}
		all[i].Location = chunkstore.Location{Pack: pack, Offset: uint32(i%500) * 60000, Length: 50000 + r.Uint32N(10000), RawLen: 131072}
	}
	return all
}

func states(t testing.TB, db *DB) (all []string) {
	t.Helper()
	list, err := db.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		all = append(all, s.Name+" "+s.State)
	}
	return all
}

func TestCatalogue(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	a := pending(t, db, "a")
	if a.ID == "" || a.Seq == 0 || a.State != StatePending || a.Created.IsZero() {
		t.Fatalf("not filled in: %+v", a)
	}
	if err := db.AddPending(&Snapshot{Name: "a"}); !errors.Is(err, ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	if err := db.AddPending(&Snapshot{ID: a.ID}); !errors.Is(err, ErrExists) {
		t.Errorf("an id twice: %v", err)
	}
	b := pending(t, db, "b")
	if b.Seq <= a.Seq || b.ID <= a.ID[:8] {
		t.Errorf("not ascending: %+v, %+v", a, b)
	}
	a.Files, a.PauseNS, a.Root, a.Parent = 7, 5, chunkstore.Sum([]byte("x")), "none"
	a.ManifestSHA256, a.Created = "abc", time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	if err := db.Complete(Commit{Snapshot: a}); err != nil {
		t.Fatal(err)
	}
	if err := db.Complete(Commit{Snapshot: a}); !errors.Is(err, ErrNotPending) {
		t.Errorf("completed twice: %v", err)
	}
	if err := db.Fail(a.ID, "x"); !errors.Is(err, ErrNotPending) {
		t.Errorf("failed when complete: %v", err)
	}
	if err := db.Complete(Commit{Snapshot: Snapshot{ID: "none"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("completed what isn't there: %v", err)
	}
	if err := db.Fail(b.ID, "disk full"); err != nil {
		t.Fatal(err)
	}
	pending(t, db, "b") // free again
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Snapshots(); !errors.Is(err, ErrClosed) {
		t.Errorf("used after Close: %v", err)
	}

	db = open(t, path)
	list, err := db.Snapshots()
	a.State = StateComplete
	if err != nil || len(list) != 3 || !reflect.DeepEqual(list[0], a) || list[1].Error != "disk full" {
		t.Fatalf("%+v %v", list, err)
	}
	dropped, err := db.DropPending()
	if err != nil || len(dropped) != 1 || dropped[0].Name != "b" {
		t.Fatal(dropped, err)
	}
	if got := states(t, db); !slices.Equal(got, []string{"a complete", "b failed", "b failed"}) {
		t.Fatal(got)
	}
	if err := db.Remove(b.ID, "none"); !errors.Is(err, ErrNotFound) || len(states(t, db)) != 3 {
		t.Errorf("removed something: %v", err)
	}
	if err := db.Remove(b.ID, dropped[0].ID); err != nil || len(states(t, db)) != 1 {
		t.Errorf("remove: %v", err)
	}
	if s := pending(t, db, ""); s.Seq <= dropped[0].Seq {
		t.Errorf("number %d was used before", s.Seq)
	}
}

func TestSeqSkipsTaken(t *testing.T) {
	db := open(t, testPath(t))
	a := pending(t, db, "a")
	setSeq := func(n uint64) {
		if err := db.update("test", func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketSnapshots)).SetSequence(n) }); err != nil {
			t.Fatal(err)
		}
	}
	setSeq(seqMask)
	if s := pending(t, db, "b"); s.Seq != seqMask+1+a.Seq+1 {
		t.Errorf("number %d after %d and with %d taken", s.Seq, seqMask, a.Seq)
	}
	taken := make([]Snapshot, seqMask)
	for i := range taken {
		taken[i].Seq = uint64(i) + 1
	}
	err := db.update("test", func(tx *bbolt.Tx) error {
		if _, err := nextSeq(tx, taken[1:]); err != nil {
			t.Errorf("one number is left: %v", err)
		}
		_, err := nextSeq(tx, taken)
		return err
	})
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("all numbers are taken: %v", err)
	}
}

// TestFlippedVersion: damage doesn't pass for another program's work, which a rebuild leaves alone.
func TestFlippedVersion(t *testing.T) {
	good := versionRecord(FormatVersion)
	for _, p := range [][]byte{good, good[:4]} {
		if err := checkVersion(p); err != nil {
			t.Errorf("%x: %v", p, err)
		}
		for bit := range 8 * len(p) {
			bad := bytes.Clone(p)
			bad[bit/8] ^= 1 << (bit % 8)
			if err := checkVersion(bad); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%x: %v, want ErrCorrupt", bad, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	path := testPath(t)
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Timeout: 20 * time.Millisecond}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	err = db.update("test", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketFormat)).Put([]byte(keyVersion), versionRecord(FormatVersion+1))
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer index: %v", err)
	}

	path = testPath(t)
	other, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = other.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err })
	if err = errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another database: %v", err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database"), 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no database: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "index.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestMeta(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	if v, err := db.Meta("volume"); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if err := errors.Join(db.PutMeta("volume", []byte("x")), db.PutMeta("empty", []byte{}), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if v, err := db.Meta("volume"); string(v) != "x" || err != nil {
		t.Fatal(v, err)
	}
	if v, err := db.Meta("empty"); v == nil || err != nil {
		t.Fatal(v, err)
	}
	if v, err := db.Meta("volume"); db.PutMeta("volume", nil) != nil || string(v) != "x" || err != nil {
		t.Fatal(v, err)
	}
	if v, err := db.Meta("volume"); v != nil || err != nil {
		t.Fatal(v, err)
	}
}

// copyIndex copies the files as they are at this moment, as a crash would leave them.
func copyIndex(t testing.TB, path string) string {
	t.Helper()
	to := testPath(t)
	for _, p := range [][2]string{{path, to}, {IntentPath(path), IntentPath(to)}} {
		b, err := os.ReadFile(p[0])
		if err == nil {
			err = os.WriteFile(p[1], b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Whenever a crash comes while a snapshot is completed, it is pending with its epoch, or complete with all of its chunks.
func TestCompleteIsAtomic(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	s := pending(t, db, "a")
	if err := db.PutEpoch(1, slices.Values([]*Dirty{{Ino: 5, Flags: DirtyAttr}})); err != nil {
		t.Fatal(err)
	}
	if err := db.AddIntents(t.Context(), 1, Intent{Kind: IntentDir, Ino: 2}); err != nil {
		t.Fatal(err)
	}
	chunks := located(1, 2*chunkBatch+100)
	var copies []string
	db.committed = func() { copies = append(copies, copyIndex(t, path)) }
	s.Epoch = 1
	if err := db.Complete(Commit{Snapshot: s, Chunks: chunks}); err != nil {
		t.Fatal(err)
	}
	db.committed = nil
	if len(copies) != 3 {
		t.Errorf("%d transactions", len(copies))
	}
	for i, path := range copies {
		c := open(t, path)
		epochs, err := c.Epochs()
		if err != nil {
			t.Fatal(err)
		}
		intents, err := c.Intents(1)
		if err != nil || len(intents) != 1 {
			t.Fatalf("stage %d: intents %v %v", i, intents, err)
		}
		want := []string{"a pending"}
		if i == len(copies)-1 {
			want = []string{"a complete"}
		}
		if got := states(t, c); !slices.Equal(got, want) || len(epochs) != 1 {
			t.Fatalf("stage %d: %v, epochs %v", i, got, epochs)
		}
		if want[0] == "a complete" {
			sameChunks(t, c, chunks)
		} else {
			dropOrphans(t, c)
		}
	}
	sameChunks(t, db, chunks)
	if in, err := db.Intents(1); err != nil || len(in) != 0 {
		t.Errorf("intents of the dropped epoch: %v %v", in, err)
	}
}

// dropOrphans does what happens after a crash: the pending snapshot is dropped, and what it left is pruned.
func dropOrphans(t *testing.T, c *DB) {
	t.Helper()
	if dropped, err := c.DropPending(); err != nil || len(dropped) != 1 {
		t.Fatal(dropped, err)
	}
	var ids []chunkstore.ID
	packs := map[chunkstore.PackID]bool{}
	err := c.ForEachChunk(func(id chunkstore.ID, loc chunkstore.Location) error {
		ids = append(ids, id)
		packs[loc.Pack] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []chunkstore.PackID
	for p := range packs {
		all = append(all, p)
	}
	if err := c.Relocate(nil, all, ids...); err != nil {
		t.Fatal(err)
	}
	sameChunks(t, c, nil)
}

// sameChunks checks that the index has exactly these chunks.
func sameChunks(t *testing.T, db *DB, want []chunkstore.Located) {
	t.Helper()
	want = slices.Clone(want)
	sortLocated(want)
	n := 0
	err := db.ForEachChunk(func(id chunkstore.ID, loc chunkstore.Location) error {
		if n >= len(want) || want[n].ID != id || want[n].Location != loc {
			return fmt.Errorf("chunk %d is %v at %v", n, id, loc)
		}
		n++
		return nil
	})
	if err != nil || n != len(want) {
		t.Fatalf("%d chunks, want %d: %v", n, len(want), err)
	}
	for i := range min(len(want), 50) {
		if loc, ok, err := db.Locate(want[i].ID); err != nil || !ok || loc != want[i].Location {
			t.Fatal(loc, ok, err)
		}
	}
	if _, ok, err := db.Locate(chunkstore.ID{1}); ok || err != nil {
		t.Fatal("found what isn't there", err)
	}
}

func TestRelocate(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	chunks := located(2, 1500) // 3 packs
	if err := db.Relocate(slices.Clone(chunks), nil); err != nil {
		t.Fatal(err)
	}
	first := chunks[0].Pack
	if err := db.Relocate(nil, []chunkstore.PackID{first}); !errors.Is(err, ErrPackInUse) {
		t.Errorf("forgot a pack with chunks: %v", err)
	}
	if err := db.Relocate(nil, []chunkstore.PackID{first}, chunks[0].ID); !errors.Is(err, ErrPackInUse) {
		t.Errorf("forgot a pack with chunks: %v", err)
	}
	sameChunks(t, db, chunks)

	// Half of the first pack goes to another one, the rest away.
	moved := slices.Clone(chunks[:250])
	for i := range moved {
		moved[i].Location = chunkstore.Location{Pack: chunkstore.PackID{42}, Offset: uint32(i), Length: 1, RawLen: 2}
	}
	var drop []chunkstore.ID
	for _, l := range chunks[250:500] {
		drop = append(drop, l.ID)
	}
	drop = append(drop, chunkstore.ID{7}) // isn't there
	if err := db.Relocate(slices.Clone(moved), []chunkstore.PackID{first, {99}}, drop...); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(moved), chunks[500:]...)
	sameChunks(t, db, want)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	sameChunks(t, db, want)
	// The pack can come back, as one that was never there.
	if err := db.Relocate(slices.Clone(chunks[:250]), nil); err != nil {
		t.Fatal(err)
	}
	sameChunks(t, db, append(slices.Clone(chunks[:250]), chunks[500:]...))
}

// A failed transaction leaves no number to a pack that isn't in the index.
func TestFailedTransaction(t *testing.T) {
	db := open(t, testPath(t))
	boom := errors.New("boom")
	chunks := located(3, 10)
	err := db.updateChunks(func(_ *bbolt.Tx, c *chunkTx) error { return errors.Join(c.putAll(chunks), boom) })
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	sameChunks(t, db, nil)
	other := located(4, 10)
	if err := db.Relocate(slices.Clone(other), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Relocate(slices.Clone(chunks), nil); err != nil {
		t.Fatal(err)
	}
	sameChunks(t, db, append(chunks, other...))
}

func TestForEachChunkMayWrite(t *testing.T) {
	db := open(t, testPath(t))
	chunks := located(5, 3*walkBatch+1)
	if err := db.Relocate(slices.Clone(chunks), nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := db.ForEachChunk(func(id chunkstore.ID, _ chunkstore.Location) error {
		if n++; n%walkBatch == 0 {
			return db.Relocate(nil, nil, id)
		}
		return nil
	})
	if err != nil || n != len(chunks) {
		t.Fatal(n, err)
	}
	boom := errors.New("boom")
	if err := db.ForEachChunk(func(chunkstore.ID, chunkstore.Location) error { return boom }); err != boom {
		t.Fatal(err)
	}
}
