package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
)

// TestDamagedHead flips every byte that bbolt takes on trust when it opens a file: both metas and the list of free pages. The index is refused
// then, and the file left as it is.
func TestDamagedHead(t *testing.T) {
	path := filled(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := readHead(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	free := int(head.freelist * head.pageSize)
	listed := int(binary.NativeEndian.Uint16(whole[free+10:]))
	if listed == 0 {
		t.Fatal("there are no free pages to test with")
	}
	spans := [][2]int{{pageHead, pageHead + metaLen}, {int(head.pageSize) + pageHead, int(head.pageSize) + pageHead + metaLen}, {free, free + 10}}
	for _, span := range spans {
		for at := span[0]; at < span[1]; at++ {
			refusesFlip(t, path, whole, at, 1<<(at%8))
		}
	}
	refusesFlip(t, path, whole, free+11, 0x40)                       // more pages than there is room for
	refusesFlip(t, path, whole, free+pageHead+7, 0x01)               // a page beyond the file
	refusesFlip(t, path, whole, free+pageHead, whole[free+pageHead]) // page 0
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if head.pages*head.pageSize > uint64(len(whole)/2) {
		if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut short: %v", err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func refusesFlip(t *testing.T, path string, whole []byte, at int, mask byte) {
	t.Helper()
	p := bytes.Clone(whole)
	p[at] ^= mask
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, Options{})
	if err == nil {
		db.Close()
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("byte %d ^ %#x: %v", at, mask, err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, p) {
		t.Errorf("byte %d: the damaged file was changed: %v", at, err)
	}
}

// TestFactsDontVanish damages the facts in every byte of their keys and values.
func TestFactsDontVanish(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	for key, val := range map[string]string{"first.fact": "1", "second.fact": "a longer value", "third.fact": "x"} {
		if err := db.PutMeta(key, []byte(val)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.PutMeta("third.fact", nil), db.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range []string{"first.fact1", "second.facta longer value"} {
		from := bytes.LastIndex(whole, []byte(fact))
		for at := from; at < from+len(fact); at++ {
			p := bytes.ReplaceAll(bytes.Clone(whole), []byte(fact), flipped(fact, at-from))
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := Open(path, Options{})
			if err == nil {
				db.Close()
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d of %q: %v", at-from, fact, err)
			}
		}
	}
}

// flipped is s with one bit of one byte changed, in such a way that keys stay in order.
func flipped(s string, at int) []byte {
	p := []byte(s)
	p[at] ^= 1
	return p
}

func TestImport(t *testing.T) {
	path := testPath(t)
	db, err := Open(path, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	in := []Snapshot{{ID: "a", Name: "one", State: StateComplete, Epoch: 7}, {ID: "b", Name: "two", State: StateFailed, Error: "why"}, {ID: "c", Name: "three", State: StateComplete}}
	if err := errors.Join(db.Import(in), db.Sync()); err != nil {
		t.Fatal(err)
	}
	if err := db.Import(in[:1]); err == nil {
		t.Error("a catalogue was overwritten")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	all, err := db.Snapshots()
	if err != nil || len(all) != 3 || all[1].Error != "why" || all[2].Seq != 3 {
		t.Errorf("%+v, %v", all, err)
	}
	if s := pending(t, db, "next"); s.Seq != 4 {
		t.Errorf("the next snapshot has the number %d", s.Seq)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := db.Import(make([]Snapshot, seqMask+1)); !errors.Is(err, ErrTooMany) {
		t.Errorf("too many: %v", err)
	}
}
