package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"go.etcd.io/bbolt"
)

// largeIndex gives the bytes of an index whose bucket of chunks has two levels of branches.
func largeIndex(t *testing.T) (raw []byte, head fileHead) {
	t.Helper()
	path := testPath(t)
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = db.update("test", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketChunks))
		for i := range uint64(40_000) {
			if err := b.Put(binary.BigEndian.AppendUint64(make([]byte, 24, 32), i), make([]byte, 64)); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, db.PutEpoch(7, func(func(*Dirty) bool) {}), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := checkFile(path); err != nil {
		t.Fatal("undamaged:", err)
	}
	if raw, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if head, err = readHead(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return raw, head
}

// TestCircles: an index whose branches lead around in a circle is refused; bbolt would follow them until the memory is used up.
func TestCircles(t *testing.T) {
	raw, head := largeIndex(t)
	var branches []uint64
	for id := uint64(2); id < head.pages; id++ {
		if p := raw[id*head.pageSize:]; word64(p) == id && word16(p[8:]) == pageBranch {
			branches = append(branches, id)
		}
	}
	if len(branches) < 3 {
		t.Fatalf("only %d branches", len(branches))
	}
	refused := 0
	for _, from := range branches {
		for _, to := range branches {
			p := raw[from*head.pageSize:]
			last := pageHead + uint64(word16(p[10:])-1)*elementLen + 8
			was := word64(p[last:])
			if to == was {
				continue
			}
			binary.NativeEndian.PutUint64(p[last:], to)
			err := checkBranches(bytes.NewReader(raw), head)
			binary.NativeEndian.PutUint64(p[last:], was)
			switch {
			case errors.Is(err, ErrCorrupt):
				refused++
			case err != nil || live(head, raw, from):
				t.Errorf("page %d leads to %d: %v, want ErrCorrupt", from, to, err)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// live tells whether a page is in use, not left by an earlier transaction.
func live(h fileHead, raw []byte, id uint64) bool {
	p := raw[h.freelist*h.pageSize:]
	for i := range uint64(word16(p[10:])) {
		if word64(p[pageHead+8*i:]) == id {
			return false
		}
	}
	return true
}

// TestLargeBucketHead: a bucket that says that it is larger than its page is refused; bbolt would copy all of it.
func TestLargeBucketHead(t *testing.T) {
	raw, head := largeIndex(t)
	p := raw[head.root*head.pageSize:]
	for i := range uint64(word16(p[10:])) {
		at := pageHead + i*elementLen + 15 // the highest byte of the value's length, on a little-endian machine
		p[at] ^= 0x40
		if err := checkBranches(bytes.NewReader(raw), head); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bucket %d: %v, want ErrCorrupt", i, err)
		}
		p[at] ^= 0x40
	}
}

// TestPackNumbers: a sequence below a number in use would give that out again.
func TestPackNumbers(t *testing.T) {
	for _, n := range []uint64{1, 1 << 40} {
		path := testPath(t)
		db, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = db.update("test", func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucketPacks))
			return errors.Join(b.Put([]byte{0, 0, 0, 2}, make([]byte, packRowLen)), b.SetSequence(n))
		})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("sequence %d: %v, want ErrCorrupt", n, err)
		}
	}
}

// TestLargeKeyInError: what is wrong with a row is said in few words, however long the row says that it is.
func TestLargeKeyInError(t *testing.T) {
	_, _, _, err := decodePack(make([]byte, 1<<20), nil)
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("%.300v", err)
	}
}
