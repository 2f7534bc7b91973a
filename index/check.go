package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// maxProblems is how many problems Check tells before it gives up.
const maxProblems = 20

// checker collects what Check finds.
type checker struct {
	ctx      context.Context
	problems []error
}

// add notes a problem; nil is none. It returns false when there is no use in going on.
func (c *checker) add(err error) bool {
	if err != nil {
		c.problems = append(c.problems, err)
	}
	return len(c.problems) < maxProblems && c.ctx.Err() == nil
}

// Check reads all of the index and tells every inconsistency that it finds, at most 20 of them, as joined errors of the class
// ErrCorrupt. Writers of the catalogue wait until it has ended; intents don't. It returns ctx's error if that ends first.
func (db *DB) Check(ctx context.Context) error {
	db.write.Lock()
	defer db.write.Unlock()
	c := &checker{ctx: ctx}
	err := db.view("all", func(tx *bbolt.Tx) error {
		if !c.pages(db.path, tx) {
			return nil
		}
		c.structure(tx)
		c.add(checkFacts(tx))
		for _, check := range []func(*bbolt.Tx){c.snapshots, c.epochs, c.remotes} {
			if c.add(nil) {
				check(tx)
			}
		}
		if c.add(nil) {
			c.chunks(tx, &db.packs)
		}
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(append(c.problems, err)...)
}

// structure is bbolt's own check of pages and free list.
func (c *checker) structure(tx *bbolt.Tx) {
	more := true
	for err := range tx.Check() { // to be drained, or its goroutine stays
		if more {
			more = c.add(corrupt("pages", "bbolt's check", err))
		}
	}
}

func (c *checker) snapshots(tx *bbolt.Tx) {
	all, err := readSnapshots(tx)
	if !c.add(err) {
		return
	}
	ids, names, low := make(map[string]bool), make(map[string]bool), make(map[uint64]bool)
	for _, s := range all {
		switch {
		case ids[s.ID]:
			c.add(corrupt("snapshots", "two have the id "+s.ID, nil))
		case low[s.Seq&seqMask] || s.Seq&seqMask == 0:
			c.add(corrupt("snapshots", fmt.Sprintf("%s has a number, %d, that clashes with another", s.ID, s.Seq), nil))
		case s.Seq > tx.Bucket([]byte(bucketSnapshots)).Sequence():
			c.add(corrupt("snapshots", fmt.Sprintf("%s has a number, %d, that could be given again", s.ID, s.Seq), nil))
		case s.State != StateFailed && s.Name != "" && names[s.Name]:
			c.add(corrupt("snapshots", fmt.Sprintf("two have the name %q", s.Name), nil))
		}
		ids[s.ID], low[s.Seq&seqMask] = true, true
		if s.State != StateFailed {
			names[s.Name] = true
		}
	}
}

func (c *checker) epochs(tx *bbolt.Tx) {
	err := tx.Bucket([]byte(bucketEpochs)).ForEachBucket(func(name []byte) error {
		if len(name) != 8 {
			c.add(corrupt("epochs", fmt.Sprintf("bucket %.32x", name), nil))
			return nil
		}
		return tx.Bucket([]byte(bucketEpochs)).Bucket(name).ForEach(func(k, v []byte) error {
			err := errors.New("malformed key")
			if len(k) == 8 {
				_, err = decodeDirty(binary.BigEndian.Uint64(k), v)
			}
			if err != nil {
				err = corrupt("epochs", fmt.Sprintf("inode %.32x of epoch %d", k, binary.BigEndian.Uint64(name)), err)
			}
			if !c.add(err) {
				return errStop
			}
			return nil
		})
	})
	c.add(withoutStop(err))
}

func (c *checker) remotes(tx *bbolt.Tx) {
	b := tx.Bucket([]byte(bucketRemotes))
	if b == nil {
		return
	}
	err := b.ForEach(func(k, v []byte) error {
		_, err := unframeRemote(k, v)
		if _, name, _ := bytes.Cut(k, []byte{0}); err == nil && len(name) > 0 {
			_, err = decodeRemoteObject(k, v)
		}
		if err != nil {
			err = corrupt("remotes", fmt.Sprintf("row %.64q", k), err)
		}
		if !c.add(err) {
			return errStop
		}
		return nil
	})
	c.add(withoutStop(err))
}

// chunks checks each chunk's row, and that the packs' counts are the numbers of their chunks.
func (c *checker) chunks(tx *bbolt.Tx, table *packTable) {
	count := make(map[uint32]uint64)
	var prev []byte
	err := tx.Bucket([]byte(bucketChunks)).ForEach(func(k, v []byte) error {
		_, num, err := table.decode(v)
		if err == nil && (len(k) != 32 || slices.Compare(prev, k) >= 0) {
			err = errors.New("malformed or misplaced key")
		}
		if err != nil {
			err = corrupt("chunks", fmt.Sprintf("row of %.32x", k), err)
		}
		count[num]++
		prev = k
		if !c.add(err) {
			return errStop
		}
		return nil
	})
	if !c.add(withoutStop(err)) {
		return
	}
	err = tx.Bucket([]byte(bucketPacks)).ForEach(func(k, v []byte) error {
		num, id, n, err := decodePack(k, v)
		if err == nil && n != count[num] {
			err = corrupt("packs", fmt.Sprintf("pack %s is said to have %d chunks, and has %d", id, n, count[num]), nil)
		}
		delete(count, num)
		if !c.add(err) {
			return errStop
		}
		return nil
	})
	if c.add(withoutStop(err)) && len(count) > 0 {
		c.add(corrupt("chunks", fmt.Sprintf("%d packs are referred to and not listed", len(count)), nil))
	}
}

// errStop ends a walk early; it never leaves the package.
var errStop = errors.New("stop")

func withoutStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
