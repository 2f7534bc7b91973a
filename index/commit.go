package index

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Complete makes the pending snapshot c.Snapshot.ID complete, with the facts of c.Snapshot, and forgets the intents of epochs up to
// the one that it ended. The dirty maps stay: a power cut may still undo what they name. A long list of chunks goes in transactions before it; a crash between them leaves the snapshot
// pending, and rows of chunks that are durable though nobody needs them. Errors: ErrNotFound, ErrNotPending.
func (db *DB) Complete(c Commit) error {
	if err := db.complete(&c); err != nil {
		return fmt.Errorf("completing snapshot %s: %w", c.Snapshot.ID, err)
	}
	db.intents.drop(func(n uint64) bool { return n == anyEpoch || n <= c.Snapshot.Epoch })
	return nil
}

func (db *DB) complete(c *Commit) error {
	err := db.view("snapshots", func(tx *bbolt.Tx) error {
		_, err := findPending(tx, c.Snapshot.ID)
		return err
	})
	if err != nil {
		return err
	}
	sortLocated(c.Chunks)
	chunks, err := db.putChunks(c.Chunks)
	if err != nil {
		return err
	}
	return db.updateChunks(func(tx *bbolt.Tx, ct *chunkTx) error {
		return errors.Join(
			ct.putAll(chunks),
			flip(tx, &c.Snapshot),
		)
	})
}

// flip makes the catalogue say that s is complete.
func flip(tx *bbolt.Tx, s *Snapshot) error {
	old, err := findPending(tx, s.ID)
	if err != nil {
		return err
	}
	s.Seq, s.State, s.Error = old.Seq, StateComplete, ""
	return writeSnapshot(tx, s)
}
