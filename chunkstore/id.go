package chunkstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// MaxChunk is the greatest length of a chunk in bytes.
const MaxChunk = 1 << 20

// ID names a chunk: the SHA-256 of its uncompressed bytes.
type ID [32]byte

// Sum returns the ID of the bytes p.
func Sum(p []byte) ID { return sha256.Sum256(p) }

// String returns the ID as 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether the ID is unset.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if err := parseHex(id[:], s); err != nil {
		return ID{}, fmt.Errorf("parse chunk id: %w", err)
	}
	return id, nil
}

// PackID names a pack: the first 16 bytes of the SHA-256 of its trailer.
type PackID [16]byte

// String returns the ID as 32 hexadecimal digits.
func (id PackID) String() string { return hex.EncodeToString(id[:]) }

// ParsePackID reads what String wrote.
func ParsePackID(s string) (PackID, error) {
	var id PackID
	if err := parseHex(id[:], s); err != nil {
		return PackID{}, fmt.Errorf("parse pack id: %w", err)
	}
	return id, nil
}

func parseHex(dst []byte, s string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%q has %d characters, want %d", s, len(s), 2*len(dst))
	}
	if s != strings.ToLower(s) {
		return fmt.Errorf("%q has capital letters", s)
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

// PackPrefix begins the names of all packs' objects.
const PackPrefix = "packs/"

const packSuffix = ".pack"

// Object is the name of the object that has the pack.
func (id PackID) Object() string {
	s := id.String()
	return PackPrefix + s[:2] + "/" + s + packSuffix
}

// ParsePackObject is the pack that an object has; false if that isn't its name.
func ParsePackObject(name string) (PackID, bool) {
	s, ok := strings.CutPrefix(name, PackPrefix)
	if !ok || len(s) < 3 {
		return PackID{}, false
	}
	s, ok = strings.CutSuffix(s[3:], packSuffix)
	if !ok {
		return PackID{}, false
	}
	id, err := ParsePackID(s)
	return id, err == nil && id.Object() == name
}

// Location is where a chunk's record is stored. Offset and Length are those of the record in the pack, RawLen is
// the chunk's own length; all in bytes.
type Location struct {
	Pack                   PackID
	Offset, Length, RawLen uint32
}

// Located is a chunk and its place.
type Located struct {
	ID ID
	Location
}

// PackInfo describes a pack. Size is the length of its file in bytes.
type PackInfo struct {
	ID     PackID
	Size   int64
	Chunks int // 0 in a listing, which doesn't read packs
}

// randomNonce makes equal sets of chunks, written twice, two different packs.
func randomNonce() (n [nonceLen]byte) {
	_, _ = rand.Read(n[:]) // never fails: crypto/rand ends the process instead
	return n
}
