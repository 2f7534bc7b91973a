package index

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A transaction whose last sync failed is visible in the cache, and nobody knows whether it is on the disk: it is taken back, and
// what comes after builds on the one before.
func TestFailedCommitIsTakenBack(t *testing.T) {
	db := open(t, testPath(t))
	kept := pending(t, db, "kept")
	db.write.Lock()
	before, err := db.readMetas()
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	lost := pending(t, db, "lost")
	db.write.Lock()
	db.revokeLocked(before)
	db.write.Unlock()

	all, err := db.Snapshots()
	if err != nil || len(all) != 1 || all[0].ID != kept.ID {
		t.Errorf("after a failed commit: %+v, %v; want only %s", all, err, kept.ID)
	}
	if err := db.Fail(lost.ID, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the snapshot of a failed commit: %v, want ErrNotFound", err)
	}
	for range 20 { // reuses what the failed one had freed, if it believes that one
		pending(t, db, "")
		if err := db.Check(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if other, err := Open(db.path, Options{Timeout: 1}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened a second time: %v, want ErrInUse", err)
		if err == nil {
			other.Close()
		}
	}
}

// While a failed commit can't be taken back, nothing is written, and reading goes on. A snapshot that fails meanwhile is
// listed as failed at once, and stored as such later.
func TestWritesWaitForTheDisk(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	s := pending(t, db, "s")
	good := db.file
	bad, err := os.Open(path) // read-only: every write fails
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	db.file, db.doubted = bad, false
	if err := db.Fail(s.ID, "the reason"); !errors.Is(err, unix.EBADF) {
		t.Errorf("a write while nothing can be written: %v, want EBADF", err)
	}
	failed := func() {
		t.Helper()
		all, err := db.Snapshots()
		if err != nil || len(all) != 1 || all[0].State != StateFailed || all[0].Error != "the reason" {
			t.Errorf("%+v, %v; want s failed for the reason", all, err)
		}
	}
	failed()
	db.file = good
	if err := db.PutMeta("k", []byte("v")); err != nil {
		t.Fatal("when the disk works again:", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	failed()
}
