package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Rows come in ascending order and are hardly changed afterwards, so pages are filled.
const epochFill = 0.95

// How much of a dirty map is read in one transaction.
const (
	epochBatch      = 1024
	epochBatchBytes = 4 << 20
)

type row struct {
	ino uint64
	val []byte
}

// PutEpoch stores the dirty map of an epoch, in place of the one stored before, in one transaction. An inode that comes twice
// is an error.
func (db *DB) PutEpoch(epoch uint64, seq iter.Seq[*Dirty]) error {
	var rows []row // encoded before the transaction, to keep it short
	for d := range seq {
		val, err := encodeDirty(nil, d)
		if err != nil {
			return fmt.Errorf("storing epoch %d: %w", epoch, err)
		}
		rows = append(rows, row{d.Ino, val})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.ino, b.ino) })
	err := db.update("epochs", func(tx *bbolt.Tx) error {
		if err := dropEpochs(tx, []uint64{epoch}); err != nil {
			return err
		}
		b, err := tx.Bucket([]byte(bucketEpochs)).CreateBucket(key64(epoch))
		if err != nil {
			return err
		}
		b.FillPercent = epochFill
		for i, r := range rows {
			if i > 0 && rows[i-1].ino == r.ino {
				return fmt.Errorf("inode %d comes twice", r.ino)
			}
			if err := b.Put(key64(r.ino), r.val); err != nil {
				return fmt.Errorf("inode %d: %w", r.ino, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing epoch %d: %w", epoch, err)
	}
	return nil
}

// Epochs returns the numbers of the stored dirty maps, ascending.
func (db *DB) Epochs() (all []uint64, err error) {
	err = db.view("epochs", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketEpochs)).ForEachBucket(func(k []byte) error {
			if len(k) != 8 {
				return corrupt("epochs", fmt.Sprintf("bucket %.32x", k), nil)
			}
			all = append(all, binary.BigEndian.Uint64(k))
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// LoadEpoch calls fn for every inode of a stored dirty map, ascending, until fn returns an error, which it returns. The
// Dirty is fn's to keep. ErrNotFound if that epoch isn't stored.
func (db *DB) LoadEpoch(epoch uint64, fn func(*Dirty) error) error {
	var next []byte
	for {
		rows, err := db.readRows(epoch, next)
		if err != nil {
			return fmt.Errorf("loading epoch %d: %w", epoch, err)
		}
		if len(rows) == 0 {
			return nil
		}
		for _, r := range rows {
			d, err := decodeDirty(r.ino, r.val)
			if err != nil {
				return corrupt("epochs", fmt.Sprintf("inode %d of epoch %d", r.ino, epoch), err)
			}
			if err := fn(d); err != nil {
				return err
			}
		}
		next = append(key64(rows[len(rows)-1].ino), 0)
	}
}

// readRows copies some rows of an epoch's dirty map from the key next on.
func (db *DB) readRows(epoch uint64, next []byte) (rows []row, err error) {
	err = db.view("epochs", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketEpochs)).Bucket(key64(epoch))
		if b == nil {
			return ErrNotFound
		}
		size := 0
		cur := b.Cursor()
		for k, v := cur.Seek(next); k != nil && len(rows) < epochBatch && size < epochBatchBytes; k, v = cur.Next() {
			if len(k) != 8 {
				return corrupt("epochs", fmt.Sprintf("key %.32x", k), nil)
			}
			rows = append(rows, row{binary.BigEndian.Uint64(k), bytes.Clone(v)})
			size += len(v)
		}
		return nil
	})
	return rows, err
}

// DropEpochs forgets the epochs' dirty maps, not their intents. It is no error if there are none.
func (db *DB) DropEpochs(epochs ...uint64) error {
	return db.update("epochs", func(tx *bbolt.Tx) error { return dropEpochs(tx, epochs) })
}

func dropEpochs(tx *bbolt.Tx, epochs []uint64) error {
	for _, n := range epochs {
		err := tx.Bucket([]byte(bucketEpochs)).DeleteBucket(key64(n))
		if err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
			return fmt.Errorf("dropping epoch %d: %w", n, err)
		}
	}
	return nil
}
