package crypt

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"graphvol/chunkstore/target"
)

var _ target.Target = (*Target)(nil)

// keysPrefix is what names of wrapped keyrings begin with.
const keysPrefix = "keys/"

// plainNames and plainPrefixes name what passes unencrypted.
var (
	plainNames    = []string{"store.json"}
	plainPrefixes = []string{keysPrefix}
)

// Plain reports whether objects of that name pass as they are, see the package documentation.
func Plain(name string) bool {
	for _, n := range plainNames {
		if name == n {
			return true
		}
	}
	for _, p := range plainPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// Target encrypts what it stores on another target, and decrypts what it reads from there.
type Target struct {
	inner target.Target
	ring  *Keyring
	salt  func() salt
	segs  *segmentPool
	runs  runPool
}

// New returns the target that stores on inner what it encrypts with the newest key of ring, and reads what any of its keys has encrypted.
func New(inner target.Target, ring *Keyring) *Target {
	return &Target{inner: inner, ring: ring, salt: randomSalt, segs: newSegmentPool()}
}

func randomSalt() (s salt) {
	_, _ = rand.Read(s[:]) // never fails: crypto/rand ends the process instead
	return s
}

// String names the target below.
func (t *Target) String() string { return t.inner.String() }

// Put encrypts an object as it is read by the target below. No two Puts store the same bytes, so one can't finish what another has begun.
// Beside that target's own memory it takes 64 KiB for each read that runs, and 1/8192 of the object.
func (t *Target) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := target.CheckName(name); err != nil {
		return err
	}
	if Plain(name) {
		return t.inner.Put(ctx, name, src, o)
	}
	if n := src.Size(); n < 0 || n > maxObject {
		return fmt.Errorf("store object %s: it has %d bytes, more than the %d it may have", name, n, int64(maxObject))
	}
	number, key := t.ring.newest()
	s, err := newSealer(key, makeHeader(number, t.salt()), name, src.Size())
	if err != nil {
		return fmt.Errorf("store object %s: %w", name, err)
	}
	return t.inner.Put(ctx, name, newSource(s, src, t.segs), o)
}

// Open opens an object and checks its header, its length and its last segment; ReadAt checks the others when it needs them.
func (t *Target) Open(ctx context.Context, name string) (target.Object, error) {
	inner, err := t.inner.Open(ctx, name)
	if err != nil || Plain(name) {
		return inner, err
	}
	o, err := t.open(ctx, name, inner)
	if err != nil {
		inner.Close()
		return nil, fmt.Errorf("%s: %w", t.inner, err)
	}
	return o, nil
}

// List returns objects with their plain sizes. What can't be an encrypted object, by its length, is listed with a size of 0, which no object of a store has;
// Open says ErrAltered of it.
func (t *Target) List(ctx context.Context, prefix string) ([]target.Info, error) {
	infos, err := t.inner.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for i := range infos {
		if !Plain(infos[i].Name) {
			infos[i].Size, _ = plainSize(infos[i].Size)
		}
	}
	return infos, nil
}

// Remove removes objects.
func (t *Target) Remove(ctx context.Context, names ...string) error {
	return t.inner.Remove(ctx, names...)
}
