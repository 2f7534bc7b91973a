package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// FormatVersion is that of encrypted objects which this software writes, and the greatest that it reads.
const FormatVersion = 1

const (
	magic      = "GVCRYPT\x00"
	headerLen  = 64
	segmentLen = 1 << 16
	tagLen     = 16
	sealedLen  = segmentLen + tagLen // of a segment that isn't the last

	maxObject  = 1 << 50
	objectInfo = "graphvol object 1\x00"
)

type salt [32]byte

// header is a header's bytes.
type header [headerLen]byte

func makeHeader(key uint32, s salt) (h header) {
	copy(h[:], magic)
	binary.LittleEndian.PutUint32(h[8:], FormatVersion)
	binary.LittleEndian.PutUint32(h[12:], key)
	copy(h[16:], s[:])
	return h
}

func (h *header) key() uint32 { return binary.LittleEndian.Uint32(h[12:]) }
func (h *header) salt() salt  { return salt(h[16:48]) }

// check returns an error unless h can be the header of the object of that name.
func (h *header) check(name string) error {
	if string(h[:8]) != magic {
		return altered(name, "it doesn't begin as an encrypted object")
	}
	switch v := binary.LittleEndian.Uint32(h[8:]); {
	case v > FormatVersion:
		return fmt.Errorf("object %s: version %d: %w", name, v, ErrNewerFormat)
	case v < FormatVersion:
		return altered(name, "version %d in its header", v)
	case h.key() == 0:
		return altered(name, "no key in its header")
	case !bytes.Equal(h[48:], make([]byte, headerLen-48)):
		return altered(name, "its header has bytes that must be zero")
	}
	return nil
}

// sealedSize is what an object of n bytes takes.
func sealedSize(n int64) int64 { return headerLen + n + tagLen*segments(n) }

// segments is the number of segments of an object of n bytes.
func segments(n int64) int64 { return max(1, (n+segmentLen-1)/segmentLen) }

// plainSize is the size of the object that takes sealed bytes; false if no object does.
func plainSize(sealed int64) (int64, bool) {
	body := sealed - headerLen
	if body < tagLen || sealed > sealedSize(maxObject) {
		return 0, false
	}
	n := body - tagLen*((body+sealedLen-1)/sealedLen)
	return n, n >= 0 && sealedSize(n) == sealed
}

// sealer encrypts and decrypts the segments of one object. It is used by several goroutines.
type sealer struct {
	aead   cipher.AEAD
	header header
	last   int64 // number of the last segment
}

func newSealer(key *repositoryKey, h header, name string, size int64) (*sealer, error) {
	s := h.salt()
	aead, err := key.derive(s[:], objectInfo+name)
	if err != nil {
		return nil, err
	}
	return &sealer{aead, h, segments(size) - 1}, nil
}

// derive gives AES-256-GCM with the key that HKDF-SHA-256 makes of a repository key.
func (k *repositoryKey) derive(salt []byte, info string) (cipher.AEAD, error) {
	d, err := hkdf.Key(sha256.New, k[:], salt, info, 32)
	if err != nil {
		return nil, err
	}
	defer clear(d)
	block, err := aes.NewCipher(d)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *sealer) nonce(n int64) (p [12]byte) {
	binary.BigEndian.PutUint64(p[3:], uint64(n))
	if n == s.last {
		p[11] = 1
	}
	return p
}

// seal encrypts segment n and appends it to dst. plain may be what follows dst.
func (s *sealer) seal(dst, plain []byte, n int64) []byte {
	nonce := s.nonce(n)
	return s.aead.Seal(dst, nonce[:], plain, s.header[:])
}

// open decrypts segment n and appends it to dst. sealed may be what follows dst.
func (s *sealer) open(dst, sealed []byte, n int64) ([]byte, error) {
	nonce := s.nonce(n)
	return s.aead.Open(dst, nonce[:], sealed, s.header[:])
}
