package index

import (
	"errors"
	"maps"

	"go.etcd.io/bbolt"
)

// owe remembers that a snapshot failed, for the next write transaction.
func (db *DB) owe(id, reason string) {
	db.owing.Lock()
	defer db.owing.Unlock()
	if db.owed == nil {
		db.owed = make(map[string]string)
	}
	db.owed[id] = reason
}

func (db *DB) owes() map[string]string {
	db.owing.Lock()
	defer db.owing.Unlock()
	return maps.Clone(db.owed)
}

// paid forgets what was stored.
func (db *DB) paid(owed map[string]string) {
	db.owing.Lock()
	defer db.owing.Unlock()
	for id := range owed {
		delete(db.owed, id)
	}
}

// failAll stores that snapshots failed.
func failAll(tx *bbolt.Tx, reasons map[string]string) error {
	for id, reason := range reasons {
		if err := fail(tx, id, reason); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotPending) {
			return err
		}
	}
	return nil
}
