package tree

import (
	"encoding/binary"
	"fmt"

	"graphvol/chunkstore"
)

const version = 1

// Kinds of encoded things that begin with a version and a kind.
const (
	kindLeaf   = 1
	kindNamed  = 2
	kindBranch = 3
	kindRoot   = 4
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("snapshot tree: %w: %s", chunkstore.ErrCorrupt, fmt.Sprintf(format, args...))
}

// decoder reads encoded bytes. After the first error all reads give zeros, so only the end needs a check.
type decoder struct {
	p   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = corrupt(format, args...)
		d.p = nil
	}
}

func (d *decoder) byte() byte {
	if len(d.p) == 0 {
		d.fail("ends too early")
		return 0
	}
	b := d.p[0]
	d.p = d.p[1:]
	return b
}

// uvarint accepts the shortest form only: one value has one encoding.
func (d *decoder) uvarint() uint64 {
	if len(d.p) > 0 && d.p[0] < 0x80 {
		v := d.p[0]
		d.p = d.p[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.p)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	if d.p[n-1] == 0 {
		d.fail("number isn't in its shortest form")
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *decoder) svarint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > 0xffffffff {
		d.fail("number %d is out of range", v)
	}
	return uint32(v)
}

// size reads a number of bytes or blocks, which must fit an int64.
func (d *decoder) size() int64 {
	v := d.uvarint()
	if v > 1<<63-1 {
		d.fail("size %d is out of range", v)
	}
	return int64(v)
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.p)) {
		d.fail("ends too early")
		return nil
	}
	p := d.p[:n:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) id() (id chunkstore.ID) {
	copy(id[:], d.bytes(uint64(len(id))))
	return id
}

func (d *decoder) uint64() uint64 {
	p := d.bytes(8)
	if p == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(p)
}

// header checks version and kind.
func (d *decoder) header() (kind byte) {
	v, k := d.byte(), d.byte()
	if d.err == nil && v > version {
		d.p, d.err = nil, fmt.Errorf("snapshot tree: format version %d: %w", v, chunkstore.ErrNewerFormat)
	}
	if d.err == nil && v == 0 {
		d.fail("format version 0")
	}
	return k
}

// end checks that nothing is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.p) > 0 {
		d.fail("%d bytes too many", len(d.p))
	}
	return d.err
}

func appendSvarint(b []byte, v int64) []byte {
	return binary.AppendUvarint(b, uint64(v)<<1^uint64(v>>63))
}

func appendBytes[T ~string | ~[]byte](b []byte, p T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}
