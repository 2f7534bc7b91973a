package index

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"graphvol/chunkstore"
)

var _ chunkstore.Locator = (*DB)(nil)

// A transaction takes so many chunks, in ascending order. So each touches its own part of the tree, which costs the same
// as one large transaction, but others needn't wait long for their turn and memory stays bounded.
const chunkBatch = 4096

// Chunks come in random order of their ids, so pages fill up evenly after a split. Measured with a million chunks: 0.5 makes a
// file of 110 bytes a chunk, 0.7 of 113, 0.9 of 155.
const chunkFill = 0.5

// walkBatch is how many rows are read in one transaction when all are walked.
const walkBatch = 2048

// Locate tells where a chunk is; false if the index doesn't have it.
func (db *DB) Locate(id chunkstore.ID) (loc chunkstore.Location, ok bool, err error) {
	err = db.view("chunks", func(tx *bbolt.Tx) error {
		v := tx.Bucket([]byte(bucketChunks)).Get(id[:])
		if v == nil {
			return nil
		}
		var err error
		if loc, _, err = db.packs.decode(v); err != nil {
			return corrupt("chunks", "row of "+id.String(), err)
		}
		ok = true
		return nil
	})
	return loc, ok, err
}

// updateChunks is update with a chunkTx.
func (db *DB) updateChunks(fn func(tx *bbolt.Tx, c *chunkTx) error) error {
	db.write.Lock()
	defer db.write.Unlock()
	var c *chunkTx
	err := db.updateLocked("chunks", func(tx *bbolt.Tx) error {
		c = newChunkTx(tx, &db.packs)
		if err := fn(tx, c); err != nil {
			return err
		}
		return c.flush()
	})
	if c != nil {
		c.end(err == nil)
	}
	return err
}

// sortLocated puts chunks in ascending order of their ids.
func sortLocated(chunks []chunkstore.Located) {
	slices.SortFunc(chunks, func(a, b chunkstore.Located) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// putChunks stores all but the last batch of the sorted chunks, each batch in its own transaction, and returns the rest.
func (db *DB) putChunks(chunks []chunkstore.Located) ([]chunkstore.Located, error) {
	for len(chunks) > chunkBatch {
		err := db.updateChunks(func(_ *bbolt.Tx, c *chunkTx) error { return c.putAll(chunks[:chunkBatch]) })
		if err != nil {
			return nil, err
		}
		chunks = chunks[chunkBatch:]
	}
	return chunks, nil
}

func (c *chunkTx) putAll(chunks []chunkstore.Located) error {
	for i := range chunks {
		if err := c.put(&chunks[i]); err != nil {
			return err
		}
	}
	return nil
}

// Relocate enters the new places of chunks (sorting add), then forgets the chunks dropIDs, then the packs, which must not
// have chunks any more (else ErrPackInUse). Packs and chunks that aren't there are no error. A crash leaves a part of the
// additions, or all done. The files of removed packs may be removed after Relocate has returned.
func (db *DB) Relocate(add []chunkstore.Located, removePacks []chunkstore.PackID, dropIDs ...chunkstore.ID) error {
	sortLocated(add)
	rest, err := db.putChunks(add)
	if err != nil {
		return fmt.Errorf("relocating chunks: %w", err)
	}
	drop := slices.SortedFunc(slices.Values(dropIDs), func(a, b chunkstore.ID) int { return bytes.Compare(a[:], b[:]) })
	for len(drop) > chunkBatch {
		err := db.updateChunks(func(_ *bbolt.Tx, c *chunkTx) error { return c.dropAll(drop[:chunkBatch]) })
		if err != nil {
			return fmt.Errorf("dropping chunks: %w", err)
		}
		drop = drop[chunkBatch:]
	}
	err = db.updateChunks(func(_ *bbolt.Tx, c *chunkTx) error {
		if err := errors.Join(c.putAll(rest), c.dropAll(drop), c.flush()); err != nil {
			return err
		}
		for _, id := range removePacks {
			if err := c.removePack(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("relocating chunks: %w", err)
	}
	return nil
}

func (c *chunkTx) dropAll(ids []chunkstore.ID) error {
	for _, id := range ids {
		if err := c.drop(id); err != nil {
			return err
		}
	}
	return nil
}

// ForEachChunk calls fn for every chunk, ascending, until fn returns an error, which it returns. It reads in short
// transactions: fn may call the DB, and what is changed meanwhile ahead of the walk may or may not be seen.
func (db *DB) ForEachChunk(fn func(chunkstore.ID, chunkstore.Location) error) error {
	var next []byte
	batch := make([]chunkstore.Located, 0, walkBatch)
	for {
		batch = batch[:0]
		err := db.view("chunks", func(tx *bbolt.Tx) error {
			cur := tx.Bucket([]byte(bucketChunks)).Cursor()
			for k, v := cur.Seek(next); k != nil && len(batch) < walkBatch; k, v = cur.Next() {
				var l chunkstore.Located
				var err error
				if l.Location, _, err = db.packs.decode(v); err != nil || len(k) != len(l.ID) {
					return corrupt("chunks", fmt.Sprintf("row of %.32x", k), err)
				}
				copy(l.ID[:], k)
				batch = append(batch, l)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := range batch {
			if err := fn(batch[i].ID, batch[i].Location); err != nil {
				return err
			}
		}
		if len(batch) < walkBatch {
			return nil
		}
		next = append(batch[len(batch)-1].ID[:len(chunkstore.ID{}):len(chunkstore.ID{})], 0)
	}
}
