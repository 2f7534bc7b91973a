package index

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// seqMask are the bits of Snapshot.Seq that are unique within the catalogue: a browsing node's number has room for these.
const seqMask = 0x7fff

// idAlphabet is in ascending order of bytes, so that ids sort like what they encode.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// newID returns an id of 26 characters: 48 bits of time in milliseconds, 80 random bits.
func newID(at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at.UnixMilli())<<16)
	rand.Read(b[6:]) // never fails
	return base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding).EncodeToString(b[:])
}

func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// readSnapshots returns the catalogue, oldest first.
func readSnapshots(tx *bbolt.Tx) ([]Snapshot, error) {
	var all []Snapshot
	err := tx.Bucket([]byte(bucketSnapshots)).ForEach(func(k, v []byte) error {
		s, err := decodeSnapshot(v)
		if err != nil {
			return corrupt("snapshots", fmt.Sprintf("entry %.32x", k), err)
		}
		if len(k) != 8 || binary.BigEndian.Uint64(k) != s.Seq {
			return corrupt("snapshots", fmt.Sprintf("entry %.32x has the number %d", k, s.Seq), nil)
		}
		all = append(all, s)
		return nil
	})
	return all, err
}

func writeSnapshot(tx *bbolt.Tx, s *Snapshot) error {
	rec, err := encodeSnapshot(s)
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketSnapshots)).Put(key64(s.Seq), rec)
}

// findSnapshot returns the entry of that id.
func findSnapshot(tx *bbolt.Tx, id string) (Snapshot, error) {
	all, err := readSnapshots(tx)
	if err != nil {
		return Snapshot{}, err
	}
	i := slices.IndexFunc(all, func(s Snapshot) bool { return s.ID == id })
	if i < 0 {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", id, ErrNotFound)
	}
	return all[i], nil
}

// findPending is findSnapshot, and ErrNotPending if it isn't.
func findPending(tx *bbolt.Tx, id string) (Snapshot, error) {
	s, err := findSnapshot(tx, id)
	if err == nil && s.State != StatePending {
		err = fmt.Errorf("snapshot %s is %s: %w", id, s.State, ErrNotPending)
	}
	return s, err
}

// Snapshots returns the catalogue, oldest first, with pending and failed ones.
func (db *DB) Snapshots() (all []Snapshot, err error) {
	err = db.view("snapshots", func(tx *bbolt.Tx) error {
		all, err = readSnapshots(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	owed := db.owed.all()
	for i := range all {
		if reason, ok := owed[all[i].ID]; ok {
			all[i].failed(reason)
		}
	}
	return all, nil
}

// AddPending adds s to the catalogue as pending. It sets s.Seq, s.State, and, where they are empty, s.ID and s.Created.
// Errors: ErrExists if the id is taken, or the name by a snapshot that hasn't failed; ErrTooMany.
func (db *DB) AddPending(s *Snapshot) error {
	add := *s
	add.State = StatePending
	if add.Created.IsZero() {
		add.Created = time.Now().UTC()
	}
	if add.ID == "" {
		add.ID = newID(add.Created)
	}
	err := db.update("snapshots", func(tx *bbolt.Tx) error {
		all, err := readSnapshots(tx)
		if err != nil {
			return err
		}
		for _, o := range all {
			if o.ID == add.ID {
				return fmt.Errorf("id %s: %w", add.ID, ErrExists)
			}
			if add.Name != "" && o.Name == add.Name && o.State != StateFailed {
				return fmt.Errorf("name %q is taken by snapshot %s; choose another: %w", add.Name, o.ID, ErrExists)
			}
		}
		if add.Seq, err = nextSeq(tx, all); err != nil {
			return err
		}
		return writeSnapshot(tx, &add)
	})
	if err != nil {
		return fmt.Errorf("adding a snapshot: %w", err)
	}
	*s = add
	return nil
}

// nextSeq returns a number that was never used, with low bits that no entry of the catalogue has.
func nextSeq(tx *bbolt.Tx, all []Snapshot) (uint64, error) {
	taken := make(map[uint64]bool, len(all)+1)
	taken[0] = true
	for _, s := range all {
		taken[s.Seq&seqMask] = true
	}
	if len(taken) > seqMask {
		return 0, ErrTooMany
	}
	b := tx.Bucket([]byte(bucketSnapshots))
	seq := b.Sequence() + 1
	for taken[seq&seqMask] {
		seq++
	}
	return seq, b.SetSequence(seq)
}

// Fail makes a pending snapshot a failed one that stays in the catalogue with its reason; its name becomes free. If that can't be
// stored, Snapshots says so all the same, and the next write transaction stores it: the disk that a snapshot fails for is
// often the index's. Errors: ErrNotFound, ErrNotPending.
func (db *DB) Fail(id, reason string) error {
	err := db.update("snapshots", func(tx *bbolt.Tx) error { return fail(tx, id, reason) })
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotPending) {
		db.owed.add(id, reason)
	}
	return err
}

func fail(tx *bbolt.Tx, id, reason string) error {
	s, err := findPending(tx, id)
	if err != nil {
		return err
	}
	s.failed(reason)
	return writeSnapshot(tx, &s)
}

// failed makes it a failed one. Nobody has use for one of those, so it isn't held.
func (s *Snapshot) failed(reason string) { s.State, s.Error, s.Hold = StateFailed, reason, "" }

// DropPending makes every pending snapshot a failed one, for nobody can seal them after the process that began has ended.
// It returns them, oldest first. It is called once, before the first AddPending.
func (db *DB) DropPending() (dropped []Snapshot, err error) {
	all, err := db.Snapshots()
	if err != nil || !slices.ContainsFunc(all, func(s Snapshot) bool { return s.State == StatePending }) {
		return nil, err // without a write, which would spread what is damaged
	}
	err = db.update("snapshots", func(tx *bbolt.Tx) error {
		dropped = nil
		all, err := readSnapshots(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.State != StatePending {
				continue
			}
			s.failed("dropped: the server ended before the snapshot was complete")
			if err := writeSnapshot(tx, &s); err != nil {
				return err
			}
			dropped = append(dropped, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dropped, nil
}

// Hold keeps complete snapshots from being deleted, for a reason; an empty one lets them be deleted again. All or (ErrNotFound) none.
func (db *DB) Hold(reason string, ids ...string) error {
	return db.update("snapshots", func(tx *bbolt.Tx) error {
		for _, id := range ids {
			s, err := findSnapshot(tx, id)
			if err != nil {
				return err
			}
			s.Hold = reason
			if err := writeSnapshot(tx, &s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove takes snapshots out of the catalogue, all or (ErrNotFound) none. Chunks stay, and so does what SealedEpoch says.
func (db *DB) Remove(ids ...string) error { return db.Exchange(ids, nil) }

// Exchange is Remove, and adds others as they are, oldest first, but for their Seq, which it sets: all or none.
func (db *DB) Exchange(remove []string, add []Snapshot) error {
	return db.update("snapshots", func(tx *bbolt.Tx) error {
		if err := removeSnapshots(tx, remove); err != nil {
			return err
		}
		all, err := readSnapshots(tx)
		for _, s := range add {
			if err == nil {
				s.Seq, err = nextSeq(tx, all)
			}
			if err == nil {
				err = writeSnapshot(tx, &s)
			}
			all = append(all, s)
		}
		return err
	})
}

func removeSnapshots(tx *bbolt.Tx, ids []string) error {
	sealed, err := sealedEpoch(tx)
	if err != nil {
		return err
	}
	if err := putFact(tx, metaSealed, key64(sealed)); err != nil {
		return err
	}
	for _, id := range ids {
		s, err := findSnapshot(tx, id)
		if err != nil {
			return err
		}
		if err := tx.Bucket([]byte(bucketSnapshots)).Delete(key64(s.Seq)); err != nil {
			return err
		}
	}
	return nil
}

// metaSealed is the key in bucket meta for what SealedEpoch said when a snapshot was removed.
const metaSealed = "index.sealed"

// SealedEpoch returns the greatest epoch that a complete snapshot has ended, also one that was removed; 0 if there was none. The
// dirty maps are relative to that snapshot: with an older one alone it isn't known what has changed.
func (db *DB) SealedEpoch() (n uint64, err error) {
	err = db.view("snapshots", func(tx *bbolt.Tx) error {
		n, err = sealedEpoch(tx)
		return err
	})
	return n, err
}

func sealedEpoch(tx *bbolt.Tx) (n uint64, err error) {
	if v := tx.Bucket([]byte(bucketMeta)).Get([]byte(metaSealed)); v != nil {
		if len(v) != 8 {
			return 0, corrupt("meta", fmt.Sprintf("%s is %.32x", metaSealed, v), nil)
		}
		n = binary.BigEndian.Uint64(v)
	}
	all, err := readSnapshots(tx)
	for _, s := range all {
		if s.State == StateComplete {
			n = max(n, s.Epoch)
		}
	}
	return n, err
}
