package index

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

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

// A file that can't be read any more fails every transaction, and can be closed.
func TestUnreadableFileCanBeClosed(t *testing.T) {
	db, err := Open(testPath(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(db.path, 0); err != nil { // so that reading its mapping is a memory fault
		t.Fatal(err)
	}
	if _, err := db.Meta("k"); err == nil {
		t.Error("a fact is read from nothing")
	}
	if err := db.PutMeta("k", nil); err == nil {
		t.Error("a fact is stored in nothing")
	}
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("it can't be closed")
	}
}

// Who opens the index in the moment in which its lock is given away for reopening has it, and nothing is written beside.
func TestLockLostWhileReopening(t *testing.T) {
	db := open(t, testPath(t))
	pending(t, db, "")
	if err := unix.Flock(int(db.lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	other := open(t, db.path)
	db.write.Lock()
	stale, err := db.readMetas()
	db.doubt = &doubt{metas: stale, reopen: true, lent: true}
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	theirs := pending(t, other, "theirs")
	if err := db.PutMeta("k", nil); !errors.Is(err, ErrInUse) {
		t.Errorf("written beside somebody else: %v, want ErrInUse", err)
	}
	if err := errors.Join(other.Check(context.Background()), other.Close()); err != nil {
		t.Fatal(err)
	}
	mine := pending(t, db, "mine")
	all, err := db.Snapshots()
	if err != nil || len(all) != 3 || all[1].ID != theirs.ID || all[2].ID != mine.ID {
		t.Errorf("afterwards: %+v, %v; want theirs and mine too", all, err)
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
	db.file, db.suspected = bad, false
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
