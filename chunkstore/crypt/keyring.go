package crypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// KeyringVersion is that of keyrings which this software writes, and the greatest that it reads.
const KeyringVersion = 1

const (
	maxKeyring = 64 << 10 // bytes of a keyring, also wrapped
	commitInfo = "graphvol commit"
	localInfo  = "graphvol local "
)

type repositoryKey [32]byte

// numbered is a repository key in its keyring.
type numbered struct {
	number  uint32
	created time.Time
	key     repositoryKey
}

// Keyring is a store's repository keys. It doesn't change: Rotated makes another one.
type Keyring struct {
	store string
	keys  []numbered // at least one, ascending
}

// NewStoreID makes a random store id.
func NewStoreID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// NewKeyring makes a keyring with one new key for the store of that id.
func NewKeyring(store string) (*Keyring, error) {
	if !validStoreID(store) {
		return nil, fmt.Errorf("bad store id %q", store)
	}
	return (&Keyring{store: store}).Rotated()
}

// Rotated returns the keyring with a new newest key.
func (r *Keyring) Rotated() (*Keyring, error) {
	k := numbered{number: 1, created: time.Now().UTC().Truncate(time.Second)}
	if len(r.keys) > 0 {
		n := r.keys[len(r.keys)-1].number
		if n == math.MaxUint32 {
			return nil, errors.New("there are no more numbers for repository keys")
		}
		k.number = n + 1
	}
	_, _ = rand.Read(k.key[:]) // never fails
	return &Keyring{r.store, append(r.keys[:len(r.keys):len(r.keys)], k)}, nil
}

// Store returns the store's id.
func (r *Keyring) Store() string { return r.store }

// Newest returns the number of the newest key.
func (r *Keyring) Newest() uint32 { n, _ := r.newest(); return n }

// String says what it is, without the keys.
func (r *Keyring) String() string {
	return fmt.Sprintf("keyring of store %s, newest key %d", r.store, r.Newest())
}

// GoString is String: nothing prints keys.
func (r *Keyring) GoString() string { return r.String() }

func (r *Keyring) newest() (uint32, *repositoryKey) {
	k := &r.keys[len(r.keys)-1]
	return k.number, &k.key
}

// key returns the key of a number, or nil.
func (r *Keyring) key(number uint32) *repositoryKey {
	for i := range r.keys {
		if r.keys[i].number == number {
			return &r.keys[i].key
		}
	}
	return nil
}

// Local gives what encrypts, on a reader's own disk, what was read of the store and decrypted. Its key is made of the oldest repository key, which a keyring
// never loses, and of the purpose: what was kept can be read as long as the store can.
func (r *Keyring) Local(purpose string) (cipher.AEAD, error) {
	return r.keys[0].key.derive(nil, localInfo+purpose)
}

// includes reports whether r has all keys that o has.
func (r *Keyring) includes(o *Keyring) bool {
	for i := range o.keys {
		k := r.key(o.keys[i].number)
		if k == nil || subtle.ConstantTimeCompare(k[:], o.keys[i].key[:]) == 0 {
			return false
		}
	}
	return r.store == o.store
}

// Pin is what is known of a keyring, see the package documentation. The zero Pin knows nothing.
type Pin struct {
	Store      string
	Number     uint32 // of the key that the commitment is to
	Commitment [16]byte
}

// Pin returns the store's id and the commitment to the newest key.
func (r *Keyring) Pin() Pin {
	n, key := r.newest()
	return Pin{r.store, n, commitment(key)}
}

func commitment(key *repositoryKey) [16]byte {
	h := sha256.New()
	h.Write([]byte(commitInfo))
	h.Write(key[:])
	return [16]byte(h.Sum(nil))
}

// Check returns an error that wraps ErrForeignKeyring unless the keyring is the one that was pinned.
func (p Pin) Check(r *Keyring) error {
	if p == (Pin{}) {
		return nil
	}
	if r.store != p.Store {
		return fmt.Errorf("it is of store %s, not %s: %w", r.store, p.Store, ErrForeignKeyring)
	}
	key := r.key(p.Number)
	if key == nil {
		return fmt.Errorf("it lacks key %d: %w", p.Number, ErrForeignKeyring)
	}
	if c := commitment(key); subtle.ConstantTimeCompare(c[:], p.Commitment[:]) == 0 {
		return fmt.Errorf("its key %d is another one: %w", p.Number, ErrForeignKeyring)
	}
	return nil
}

func validStoreID(s string) bool {
	p, err := hex.DecodeString(s)
	return err == nil && len(p) >= 8 && len(p) <= 16 && hex.EncodeToString(p) == s
}

type keyringJSON struct {
	FormatVersion int       `json:"format_version"`
	Store         string    `json:"store"`
	Keys          []keyJSON `json:"keys"`
}

type keyJSON struct {
	Number  uint32    `json:"number"`
	Key     []byte    `json:"key"`
	Created time.Time `json:"created"`
}

func (r *Keyring) encode() ([]byte, error) {
	j := keyringJSON{FormatVersion: KeyringVersion, Store: r.store}
	for i := range r.keys {
		k := &r.keys[i]
		j.Keys = append(j.Keys, keyJSON{k.number, k.key[:], k.created})
	}
	data, err := json.Marshal(j)
	if err == nil && len(data) > maxKeyring/2 {
		err = errors.New("the keyring is full")
	}
	return data, err
}

func decodeKeyring(data []byte) (*Keyring, error) {
	var v struct {
		FormatVersion int `json:"format_version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if v.FormatVersion > KeyringVersion {
		return nil, fmt.Errorf("keyring of version %d: %w", v.FormatVersion, ErrNewerFormat)
	}
	var j keyringJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("keyring: something follows it")
	}
	if j.FormatVersion != KeyringVersion || !validStoreID(j.Store) || len(j.Keys) == 0 {
		return nil, errors.New("keyring: bad version or store id, or no keys")
	}
	r := &Keyring{store: j.Store}
	before := uint32(0)
	for _, k := range j.Keys {
		if k.Number <= before || len(k.Key) != len(repositoryKey{}) {
			return nil, fmt.Errorf("keyring: bad key %d", k.Number)
		}
		before = k.Number
		r.keys = append(r.keys, numbered{k.Number, k.Created, repositoryKey(k.Key)})
	}
	return r, nil
}
