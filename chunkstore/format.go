package chunkstore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// PackVersion is the version of packs that this software writes, and the newest that it reads.
const PackVersion = 1

// See the package documentation for the format.
const (
	headerLen    = 16
	recordHeader = 8
	nonceLen     = 16
	entryLen     = 40
	footerLen    = 64

	headerMagic = "GVPACK\r\n"
	footerMagic = "GVPEND\r\n"

	encodingRaw  = 0
	encodingZstd = 1

	minPackLen = headerLen + nonceLen + footerLen
	maxPackLen = 1<<32 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendHeader(p []byte) []byte {
	p = append(p, headerMagic...)
	p = binary.LittleEndian.AppendUint32(p, PackVersion)
	return binary.LittleEndian.AppendUint32(p, 0)
}

// checkHeader returns ErrNewerFormat, or an error that says what is wrong.
func checkHeader(p []byte) error {
	if len(p) < headerLen || string(p[:8]) != headerMagic {
		return errors.New("this is not a pack")
	}
	switch v := binary.LittleEndian.Uint32(p[8:]); {
	case v == 0:
		return errors.New("format version 0")
	case v > PackVersion:
		return fmt.Errorf("pack format %d: %w", v, ErrNewerFormat)
	}
	if binary.LittleEndian.Uint32(p[12:]) != 0 {
		return errors.New("reserved bytes of the header are set")
	}
	return nil
}

// sealRecord fills in the first 8 bytes of rec, which the stored bytes follow.
func sealRecord(rec []byte, encoding byte) {
	binary.LittleEndian.PutUint32(rec[4:], uint32(len(rec)-recordHeader)|uint32(encoding)<<24)
	binary.LittleEndian.PutUint32(rec, crc32.Checksum(rec[4:], castagnoli))
}

// recordFields reads a record's header. The length isn't checked against anything.
func recordFields(p []byte) (crc uint32, stored uint32, encoding byte) {
	v := binary.LittleEndian.Uint32(p[4:])
	return binary.LittleEndian.Uint32(p), v & 0xffffff, byte(v >> 24)
}

// checkRecord verifies a record given as its header and its stored bytes, for a chunk of rawLen bytes.
func checkRecord(head, stored []byte, rawLen uint32) (encoding byte, err error) {
	crc, n, encoding := recordFields(head)
	if int(n) != len(stored) {
		return 0, fmt.Errorf("the record holds %d bytes, the index says %d", n, len(stored))
	}
	if got := crc32.Update(crc32.Checksum(head[4:recordHeader], castagnoli), castagnoli, stored); got != crc {
		return 0, fmt.Errorf("record checksum is %08x, want %08x", got, crc)
	}
	switch {
	case encoding > encodingZstd:
		return 0, fmt.Errorf("record has the unknown encoding %d", encoding)
	case encoding == encodingRaw && n != rawLen:
		return 0, fmt.Errorf("record holds %d bytes of a chunk of %d", n, rawLen)
	}
	return encoding, nil
}

// entry is a chunk in a trailer.
type entry struct {
	id             ID
	length, rawLen uint32
}

func appendTrailer(p []byte, nonce [nonceLen]byte, entries []entry) []byte {
	p = append(p, nonce[:]...)
	for i := range entries {
		e := &entries[i]
		p = append(p, e.id[:]...)
		p = binary.LittleEndian.AppendUint32(p, e.length)
		p = binary.LittleEndian.AppendUint32(p, e.rawLen)
	}
	return p
}

// decodeTrailer checks that the records fill the pack exactly from the header to trailerOff.
func decodeTrailer(p []byte, id PackID, trailerOff uint64) ([]Located, error) {
	if len(p) < nonceLen || (len(p)-nonceLen)%entryLen != 0 {
		return nil, fmt.Errorf("trailer of %d bytes", len(p))
	}
	p = p[nonceLen:]
	out := make([]Located, 0, len(p)/entryLen)
	off := uint64(headerLen)
	for ; len(p) > 0; p = p[entryLen:] {
		l := Located{ID: ID(p[:32])}
		l.Pack, l.Offset = id, uint32(off)
		l.Length = binary.LittleEndian.Uint32(p[32:])
		l.RawLen = binary.LittleEndian.Uint32(p[36:])
		if !l.plausible() {
			return nil, fmt.Errorf("trailer entry %d: record of %d bytes for a chunk of %d", len(out), l.Length, l.RawLen)
		}
		if off += uint64(l.Length); off > trailerOff {
			return nil, fmt.Errorf("trailer entry %d: record ends at %d, after the last at %d", len(out), off, trailerOff)
		}
		out = append(out, l)
	}
	if off != trailerOff {
		return nil, fmt.Errorf("records end at %d, the trailer begins at %d", off, trailerOff)
	}
	return out, nil
}

// plausible tells whether a record of such lengths can exist; it bounds what a reader allocates.
func (l Location) plausible() bool {
	return l.RawLen <= MaxChunk && l.Length >= recordHeader && l.Length <= l.RawLen+recordHeader && l.Offset >= headerLen
}

type footer struct {
	trailerOff uint64
	count      uint32
	sum        [32]byte
}

func (f *footer) trailerLen() int64 { return nonceLen + entryLen*int64(f.count) }

func (f *footer) packID() PackID { return PackID(f.sum[:16]) }

func appendFooter(p, header []byte, f *footer) []byte {
	start := len(p)
	p = binary.LittleEndian.AppendUint64(p, f.trailerOff)
	p = binary.LittleEndian.AppendUint32(p, f.count)
	p = binary.LittleEndian.AppendUint32(p, 0)
	p = append(p, f.sum[:]...)
	p = binary.LittleEndian.AppendUint32(p, 0)
	crc := crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, p[start:])
	p = binary.LittleEndian.AppendUint32(p, crc)
	return append(p, footerMagic...)
}

// decodeFooter reads the footer of a pack of size bytes that begins with header (already checked).
func decodeFooter(p, header []byte, size int64) (*footer, error) {
	if len(p) != footerLen || string(p[56:]) != footerMagic {
		return nil, errors.New("the pack's end is missing")
	}
	crc := crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, p[:52])
	if want := binary.LittleEndian.Uint32(p[52:]); crc != want {
		return nil, fmt.Errorf("footer checksum is %08x, want %08x", crc, want)
	}
	f := &footer{
		trailerOff: binary.LittleEndian.Uint64(p),
		count:      binary.LittleEndian.Uint32(p[8:]),
		sum:        [32]byte(p[16:48]),
	}
	if size > maxPackLen || f.trailerOff > uint64(size) || int64(f.trailerOff)+f.trailerLen()+footerLen != size {
		return nil, fmt.Errorf("trailer of %d chunks at %d doesn't fit a pack of %d bytes", f.count, f.trailerOff, size)
	}
	return f, nil
}

func trailerFooter(trailer []byte, off uint64, count int) *footer {
	return &footer{trailerOff: off, count: uint32(count), sum: sha256.Sum256(trailer)}
}
