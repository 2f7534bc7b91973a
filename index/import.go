package index

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Import fills the catalogue of an index that is made anew, oldest first. It sets the snapshots' Seq.
func (db *DB) Import(snaps []Snapshot) error {
	if len(snaps) > seqMask {
		return ErrTooMany
	}
	return db.update("snapshots", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketSnapshots))
		if k, _ := b.Cursor().First(); k != nil {
			return errors.New("the catalogue has snapshots already")
		}
		for i := range snaps {
			s := &snaps[i]
			s.Seq = uint64(i) + 1
			if err := writeSnapshot(tx, s); err != nil {
				return fmt.Errorf("snapshot %s: %w", s.ID, err)
			}
		}
		return b.SetSequence(uint64(len(snaps)))
	})
}

// Sync makes durable what was written with Options.Unsynced.
func (db *DB) Sync() error { return db.bolt.Sync() }
