package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"graphvol/chunkstore"
)

// bucketRemotes is made with the first remote; software that doesn't know it leaves it as it is, which is harmless: what a remote has is true whatever
// happens here meanwhile.
const bucketRemotes = "remotes"

const remoteVersion = 1

// Flags of a remote's object.
const (
	remoteDegraded = 1 << iota
	remoteDoomed
)

// RemoteObject is an object that a remote has, durably.
type RemoteObject struct {
	Name     string
	Size     int64     // bytes
	Degraded bool      // readable, but not on all targets that should have a part of it
	Doomed   time.Time // since when nothing needs it, whole seconds; zero: it is needed
}

// remoteKey is a remote's name, a zero byte, and an object's name. The remote's own record has no object's name.
func remoteKey(remote, object string) []byte { return []byte(remote + "\x00" + object) }

// Remotes lists the names of the remotes that have a record, ascending.
func (db *DB) Remotes() (names []string, err error) {
	err = db.view("remotes", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketRemotes))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, _ := c.First(); k != nil; {
			name, _, _ := bytes.Cut(k, []byte{0})
			names = append(names, string(name))
			k, _ = c.Seek(append(bytes.Clone(name), 1))
		}
		return nil
	})
	return names, err
}

// Remote returns a remote's record; nil if there is none. What is in it is the caller's affair.
func (db *DB) Remote(remote string) (rec []byte, err error) {
	err = db.view("remotes", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketRemotes))
		if b == nil {
			return nil
		}
		v := b.Get(remoteKey(remote, ""))
		if v == nil {
			return nil
		}
		p, err := unframeRemote(remoteKey(remote, ""), v)
		rec = bytes.Clone(p)
		return err
	})
	return rec, err
}

// PutRemote stores a remote's record, durably. The name must not be empty or have a zero byte.
func (db *DB) PutRemote(remote string, rec []byte) error {
	if remote == "" || bytes.IndexByte([]byte(remote), 0) >= 0 {
		return fmt.Errorf("a remote can't be named %q", remote)
	}
	return db.updateRemotes(func(b *bbolt.Bucket) error {
		key := remoteKey(remote, "")
		return b.Put(key, frameRemote(key, rec))
	})
}

// RemoteObjects lists the objects that a remote has whose names begin with prefix, ascending by name.
func (db *DB) RemoteObjects(remote, prefix string) (all []RemoteObject, err error) {
	err = db.view("remotes", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketRemotes))
		if b == nil {
			return nil
		}
		c, from := b.Cursor(), remoteKey(remote, prefix)
		for k, v := c.Seek(from); bytes.HasPrefix(k, from); k, v = c.Next() {
			if len(k) == len(remote)+1 {
				continue // the remote's own record
			}
			o, err := decodeRemoteObject(k, v)
			if err != nil {
				return corrupt("remotes", fmt.Sprintf("row %.64q", k), err)
			}
			o.Name = string(k[len(remote)+1:])
			all = append(all, o)
		}
		return nil
	})
	return all, err
}

// SetRemoteObjects enters objects that a remote has, durably, in place of what was said of those names, and forgets those that are gone.
func (db *DB) SetRemoteObjects(remote string, have []RemoteObject, gone []string) error {
	for i := range have {
		if have[i].Name == "" || have[i].Size < 0 {
			return fmt.Errorf("an object of a remote can't be %+v", have[i])
		}
	}
	return db.updateRemotes(func(b *bbolt.Bucket) error {
		for _, name := range gone {
			if err := b.Delete(remoteKey(remote, name)); err != nil {
				return err
			}
		}
		for i := range have {
			key := remoteKey(remote, have[i].Name)
			if err := b.Put(key, encodeRemoteObject(key, &have[i])); err != nil {
				return err
			}
		}
		return nil
	})
}

// DropRemote forgets a remote with all its objects.
func (db *DB) DropRemote(remote string) error {
	return db.updateRemotes(func(b *bbolt.Bucket) error {
		c, from := b.Cursor(), remoteKey(remote, "")
		for k, _ := c.Seek(from); bytes.HasPrefix(k, from); k, _ = c.Seek(from) {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) updateRemotes(fn func(*bbolt.Bucket) error) error {
	err := db.update("remotes", func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketRemotes))
		if err != nil {
			return err
		}
		return fn(b)
	})
	if err != nil {
		return fmt.Errorf("noting what a remote has: %w", err)
	}
	return nil
}

// PackIDs lists the packs that have chunks in the index, in the order in which they came. All that a snapshot needs which is complete when PackIDs is called is in them.
func (db *DB) PackIDs() (ids []chunkstore.PackID, err error) {
	err = db.eachPack(func(id chunkstore.PackID, chunks uint64) {
		if chunks > 0 {
			ids = append(ids, id)
		}
	})
	return ids, err
}

// KnownPacks gives all packs that the index has ever had chunks of and hasn't forgotten.
func (db *DB) KnownPacks() (map[chunkstore.PackID]bool, error) {
	known := make(map[chunkstore.PackID]bool)
	err := db.eachPack(func(id chunkstore.PackID, _ uint64) { known[id] = true })
	return known, err
}

func (db *DB) eachPack(fn func(id chunkstore.PackID, chunks uint64)) error {
	return db.view("packs", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketPacks)).ForEach(func(k, v []byte) error {
			_, id, chunks, err := decodePack(k, v)
			if err == nil {
				fn(id, chunks)
			}
			return err
		})
	})
}

// frameRemote is a version, a payload, and the CRC-32C of the key and both: a row whose key is damaged must not speak of something else.
func frameRemote(key, payload []byte) []byte {
	p := append([]byte{remoteVersion}, payload...)
	return binary.LittleEndian.AppendUint32(p, checksum(slices.Concat(key, p)))
}

func unframeRemote(key, v []byte) ([]byte, error) {
	if len(v) < 5 {
		return nil, errShort
	}
	p := v[:len(v)-4]
	if checksum(slices.Concat(key, p)) != binary.LittleEndian.Uint32(v[len(p):]) {
		return nil, errors.New("wrong checksum")
	}
	if p[0] != remoteVersion {
		return nil, fmt.Errorf("record of version %d, this software reads version %d: %w", p[0], remoteVersion, ErrNewerFormat)
	}
	return p[1:], nil
}

func encodeRemoteObject(key []byte, o *RemoteObject) []byte {
	flags := uint64(0)
	if o.Degraded {
		flags |= remoteDegraded
	}
	if !o.Doomed.IsZero() {
		flags |= remoteDoomed
	}
	p := binary.AppendUvarint(binary.AppendUvarint(nil, flags), uint64(o.Size))
	if flags&remoteDoomed != 0 {
		p = binary.AppendVarint(p, o.Doomed.Unix())
	}
	return frameRemote(key, p)
}

func decodeRemoteObject(key, v []byte) (o RemoteObject, err error) {
	p, err := unframeRemote(key, v)
	if err != nil {
		return o, err
	}
	r := reader{p: p}
	flags, size := r.uvarint(), r.uvarint()
	o.Degraded, o.Size = flags&remoteDegraded != 0, int64(size)
	if flags&remoteDoomed != 0 {
		o.Doomed = time.Unix(r.varint(), 0).UTC()
	}
	switch {
	case r.err != nil:
		return o, r.err
	case flags > remoteDegraded|remoteDoomed || o.Size < 0 || len(r.p) > 0:
		return o, errors.New("malformed")
	}
	return o, nil
}
