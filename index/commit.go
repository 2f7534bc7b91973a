package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// A transaction takes so many pages of fingerprints, 8 KiB each.
const fingerprintBatch = 512

// Complete makes the pending snapshot c.Snapshot.ID complete, with the facts of c.Snapshot. The flip is one transaction, in which
// also the epochs are dropped. Large lists go in transactions before it; a crash between them leaves the snapshot
// pending, and rows of chunks that are durable though nobody needs them. Errors: ErrNotFound, ErrNotPending.
func (db *DB) Complete(c Commit) error {
	if err := db.complete(&c); err != nil {
		return fmt.Errorf("completing snapshot %s: %w", c.Snapshot.ID, err)
	}
	db.intents.drop(func(n uint64) bool { return n == anyEpoch || slices.Contains(c.DropEpochs, n) })
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
	pages := c.Fingerprints
	drop := c.DropFingerprints
	for len(pages) > fingerprintBatch {
		err := db.update("fingerprints", func(tx *bbolt.Tx) error {
			return errors.Join(dropFingerprints(tx, drop), putFingerprints(tx, pages[:fingerprintBatch]))
		})
		if err != nil {
			return err
		}
		pages, drop = pages[fingerprintBatch:], nil
	}
	return db.updateChunks(func(tx *bbolt.Tx, ct *chunkTx) error {
		return errors.Join(
			ct.putAll(chunks),
			dropFingerprints(tx, drop),
			putFingerprints(tx, pages),
			dropEpochs(tx, c.DropEpochs),
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

func fingerprintKey(ino uint64, page uint32) []byte {
	return binary.BigEndian.AppendUint32(key64(ino), page)
}

func putFingerprints(tx *bbolt.Tx, pages []FingerprintPage) error {
	b := tx.Bucket([]byte(bucketFingerprints))
	for i := range pages {
		p := &pages[i]
		if len(p.Sums) > BlocksPerFingerprintPage {
			return fmt.Errorf("fingerprint page %d of inode %d has %d sums", p.Page, p.Ino, len(p.Sums))
		}
		n := len(p.Sums)
		for n > 0 && p.Sums[n-1] == 0 {
			n--
		}
		val := make([]byte, 0, 4*n)
		for _, s := range p.Sums[:n] {
			val = binary.LittleEndian.AppendUint32(val, s)
		}
		if err := b.Put(fingerprintKey(p.Ino, p.Page), val); err != nil {
			return err
		}
	}
	return nil
}

func dropFingerprints(tx *bbolt.Tx, inos []uint64) error {
	b := tx.Bucket([]byte(bucketFingerprints))
	for _, ino := range inos {
		var keys [][]byte // deleting under a cursor makes it skip rows
		prefix := key64(ino)
		cur := b.Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// Fingerprints fills dst with the sums of an 8 MiB piece of a file, and 0 where it has none; false if there is no page
// for it, with dst unchanged.
func (db *DB) Fingerprints(ino uint64, page uint32, dst []uint32) (ok bool, err error) {
	err = db.view("fingerprints", func(tx *bbolt.Tx) error {
		v := tx.Bucket([]byte(bucketFingerprints)).Get(fingerprintKey(ino, page))
		if v == nil {
			return nil
		}
		if err := decodeFingerprints(v, dst); err != nil {
			return corrupt("fingerprints", fmt.Sprintf("page %d of inode %d", page, ino), err)
		}
		ok = true
		return nil
	})
	return ok, err
}

func decodeFingerprints(v []byte, dst []uint32) error {
	if len(v)%4 != 0 || len(v) > 4*BlocksPerFingerprintPage {
		return fmt.Errorf("%d bytes long", len(v))
	}
	clear(dst)
	for i := range min(len(dst), len(v)/4) {
		dst[i] = binary.LittleEndian.Uint32(v[4*i:])
	}
	return nil
}
