package erasure

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// FormatVersion is that of shards which this software writes, and the greatest that it reads.
const FormatVersion = 1

const (
	magic     = "GVSHARD\x00"
	headerLen = 96
)

type kind byte

const (
	kindShard kind = iota
	kindCopy
	kindClaim
)

var (
	// ErrNewerFormat says that a shard was written by a newer version of the software.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
	errDamaged     = errors.New("damaged")
)

func damaged(what string) error { return fmt.Errorf("%w: %s", errDamaged, what) }

// header is the beginning of a shard or copy.
type header struct {
	version
	number int
	kind   kind
	body   int64
	name   [sha256.Size]byte
}

func newHeader(name string, v version, number int, k kind) header {
	h := header{version: v, number: number, kind: k, name: sha256.Sum256([]byte(name))}
	h.body = h.wantBody()
	return h
}

func (h *header) wantBody() int64 {
	if h.kind == kindShard {
		return h.shardLen(h.length)
	}
	return h.length
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func (h *header) encode() []byte {
	p := make([]byte, 0, headerLen)
	p = append(p, magic...)
	p = binary.LittleEndian.AppendUint32(p, FormatVersion)
	p = append(p, byte(h.Data), byte(h.Parity), byte(h.number), byte(h.kind))
	p = binary.LittleEndian.AppendUint64(p, uint64(h.length))
	p = binary.LittleEndian.AppendUint64(p, uint64(h.body))
	p = binary.LittleEndian.AppendUint64(p, h.gen)
	p = append(p, h.name[:]...)
	p = append(p, make([]byte, headerLen-4-len(p))...)
	return binary.LittleEndian.AppendUint32(p, checksum(p))
}

// decodeHeader accepts what encode writes, and nothing else.
func decodeHeader(p []byte) (header, error) {
	if len(p) < headerLen {
		return header{}, damaged("the header is cut")
	}
	p = p[:headerLen]
	if string(p[:8]) != magic {
		return header{}, damaged("this is no shard")
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != FormatVersion {
		return header{}, fmt.Errorf("version %d: %w", v, ErrNewerFormat)
	}
	if binary.LittleEndian.Uint32(p[headerLen-4:]) != checksum(p[:headerLen-4]) {
		return header{}, damaged("the header's checksum differs")
	}
	h := header{
		version: version{
			Layout: Layout{int(p[12]), int(p[13])},
			length: int64(binary.LittleEndian.Uint64(p[16:])),
			gen:    binary.LittleEndian.Uint64(p[32:]),
		},
		number: int(p[14]),
		kind:   kind(p[15]),
		body:   int64(binary.LittleEndian.Uint64(p[24:])),
		name:   [sha256.Size]byte(p[40:]),
	}
	if h.check() != nil || h.number >= h.total() || h.kind > kindClaim || h.kind != kindShard && h.total() != 1 ||
		h.length < 0 || h.length > maxLength || h.body != h.wantBody() || string(h.encode()) != string(p) {
		return header{}, damaged("the header contradicts itself")
	}
	return h, nil
}

// encodeTable lists the checksums of units.
func encodeTable(sums []uint32) []byte {
	p := make([]byte, 0, 4*len(sums)+4)
	for _, s := range sums {
		p = binary.LittleEndian.AppendUint32(p, s)
	}
	return binary.LittleEndian.AppendUint32(p, checksum(p))
}

// decodeTable reads the checksums of n units.
func decodeTable(p []byte, n int64) ([]uint32, error) {
	if int64(len(p)) != 4*n+4 {
		return nil, damaged("the table of checksums is cut")
	}
	end := len(p) - 4
	if binary.LittleEndian.Uint32(p[end:]) != checksum(p[:end]) {
		return nil, damaged("the checksum of the table of checksums differs")
	}
	sums := make([]uint32, n)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(p[4*i:])
	}
	return sums, nil
}
