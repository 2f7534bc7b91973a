package index

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// doubt is what keeps the next write transaction from building on what may not be on the disk; see "Failed writes" in the package
// documentation.
type doubt struct {
	metas  []byte // what the first two pages must hold, durably
	reopen bool   // bbolt has the free pages of another transaction in memory
	lent   bool   // the pages are written, and DB.lock was given away for reopening: somebody else may have the index
}

// readMetas returns the two pages in which bbolt looks for its newest transaction.
func (db *DB) readMetas() ([]byte, error) {
	p := make([]byte, 2*db.pageSize)
	if err := db.readMeta(p, 0); err != nil {
		return nil, err
	}
	return p, nil
}

// readMeta reads from the first pages, past bbolt and its mapping.
func (db *DB) readMeta(p []byte, off int) error {
	_, err := db.file.ReadAt(p, int64(off))
	switch {
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	case err != nil:
		return fmt.Errorf("reading the index's first pages: %w", err)
	}
	return nil
}

// touchMetas reads what bbolt, beginning a transaction, reads from its mapping with its locks held. A disk that fails is an error here; there it would be
// a panic that leaves the locks locked, and Close would wait for ever.
func (db *DB) touchMetas() error {
	var p [1]byte
	if err := db.readMeta(p[:], 0); err != nil {
		return err
	}
	return db.readMeta(p[:], db.pageSize)
}

// suspectLocked is called before the first write transaction: the process that wrote the newest one may have died before it was durable, or its
// last sync may have failed.
func (db *DB) suspectLocked() error {
	if db.suspected {
		return nil
	}
	metas, err := db.readMetas()
	if err == nil {
		db.doubt, db.suspected = &doubt{metas: metas}, true
	}
	return err
}

// revokeLocked takes a transaction back whose commit failed, whatever is visible of it. before is what readMetas gave before it.
func (db *DB) revokeLocked(before []byte) {
	db.doubt = &doubt{metas: before, reopen: true}
	if err := db.settleLocked(); err != nil {
		db.log.Error("index: nothing can be written until the disk below works again", "err", err)
	}
}

// settleLocked ends a doubt. Until it succeeds there is no write transaction.
func (db *DB) settleLocked() error {
	if db.doubt == nil {
		return nil
	}
	var err error
	if db.doubt.lent {
		err = db.takeBackLocked()
	} else {
		err = db.writeMetas(db.doubt.metas)
	}
	if err != nil {
		return err
	}
	if db.doubt.reopen {
		if err := db.reopenLocked(); err != nil {
			return fmt.Errorf("reading the index anew: %w", err)
		}
	}
	db.doubt = nil
	return nil
}

func (db *DB) writeMetas(p []byte) error {
	if _, err := db.file.WriteAt(p, 0); err != nil {
		return fmt.Errorf("writing the index's first pages anew: %w", err)
	}
	if err := unix.Fdatasync(int(db.file.Fd())); err != nil {
		return fmt.Errorf("writing the index's first pages anew: fdatasync: %w", err)
	}
	return nil
}

// takeBackLocked has the lock again that reopening has given away, as soon as nobody else has it.
func (db *DB) takeBackLocked() error {
	if err := lockIndex(db.lock); err != nil {
		return err
	}
	db.doubt.lent = false
	return nil
}

// reopenLocked makes bbolt forget what it has in memory. It needs the file's lock for that, which DB.lock lends it.
func (db *DB) reopenLocked() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer db.guard("the file", &err)
	file, err := os.OpenFile(db.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	db.doubt.lent = true
	if err := moveLock(db.lock, file); err != nil {
		return errors.Join(err, file.Close())
	}
	bolt, err := bbolt.Open(db.path, 0o600, boltOptions(db.opts, func() (*os.File, error) { return file, nil }))
	if err != nil { // bbolt has closed the file
		return errors.Join(db.boltError("the file", err), db.takeBackLocked())
	}
	if err := moveLock(file, db.lock); err != nil {
		return errors.Join(err, bolt.Close())
	}
	db.doubt.lent = false
	db.using.Lock()
	old, oldFile := db.bolt, db.file
	db.bolt, db.file = bolt, file
	db.using.Unlock()
	// The file first: what bbolt then says about a closed file means nothing.
	err = oldFile.Close()
	_ = old.Close()
	return err
}
