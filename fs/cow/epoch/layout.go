package epoch

import (
	"encoding/binary"
	"unsafe"
)

// Geometry of the marks.
const (
	BlockSize = 4096

	slotBlocks = 2048 // blocks whose bits a slot has
	slotWords  = slotBlocks / 64
	maxBlocks  = 1 << 52 // no file is as large
	maxSlots   = maxBlocks / slotBlocks

	// A mark of so many whole slots at once becomes one record instead of a bitmap a slot.
	minRun = 2
)

// Geometry of the files.
const (
	cell      = 96
	headerLen = cell
	slotCells = 3

	nameAlign  = 8
	nameHead   = 24
	maxNameLen = 4096
)

// FormatVersion is the version of an epoch's files that this software writes and reads.
const FormatVersion = 1

const (
	magic = 0x0a48434f50455647 // "GVEPOCH\n", little endian

	// flagIncomplete in a header: marks were made that are not in the files.
	flagIncomplete = 1
	// flagSums: the records have checksums of their marks; those of earlier versions have none.
	flagSums = 2
)

// kind tells what a record is. 0 is none: free, or not finished.
type kind uint32

const (
	kindInode kind = 0x47560001 + iota
	kindSlot
	kindRun
)

// Kinds of records in the names file; above the 16 bits of the length.
const (
	kindName kind = 0xa501 + iota
	kindHint

	kindUnfinished kind = 0xa500 // the process died while it wrote the record
)

// Kinds of files.
const (
	fileBits  = 1
	fileNames = 2
)

// header is the first record of a file.
type header struct {
	magic   uint64
	version uint32
	sum     uint32 // of magic, version, epoch and file
	epoch   uint64
	file    uint32
	flags   uint32 // atomic
	_       [64]byte
}

// inodeRec is the record of an inode. state is stored last, so that what has it is whole.
type inodeRec struct {
	state    uint32 // kind
	sum      uint32 // of state and ino
	ino      uint64
	gen      uint64 // atomic
	flags    uint32 // atomic; index.DirtyFlags
	identSum uint32 // of the ident; 0: there is none, or it is being written
	bits     uint64 // atomic; blocks 0 to 63
	hint     uint64 // where in the names file the hint is; 0: nowhere
	identGen uint64
	size     int64
	ctime    int64
	btime    int64
	ctimeNS  uint32
	btimeNS  uint32
	bitsSum  uint32 // atomic; of bits
	headSum  uint32 // atomic; of flags and gen
}

// slotRec has the bits of 2048 blocks. The first word of slot 0 isn't used: those bits are the inode's.
type slotRec struct {
	state uint32
	sum   uint32 // of state, ino and slot
	ino   uint64
	slot  uint64

	bitsSum uint32 // atomic; of bits
	_       uint32
	bits    [slotWords]uint64 // atomic
}

// runRec says that all blocks of n slots are marked.
type runRec struct {
	state uint32
	sum   uint32 // of state, ino, first and n
	ino   uint64
	first uint64
	n     uint64
	_     [64]byte
}

// The sizes are the format: these lines don't compile if a struct has another one.
var (
	_ [cell]byte             = [unsafe.Sizeof(header{})]byte{}
	_ [cell]byte             = [unsafe.Sizeof(inodeRec{})]byte{}
	_ [cell]byte             = [unsafe.Sizeof(runRec{})]byte{}
	_ [slotCells * cell]byte = [unsafe.Sizeof(slotRec{})]byte{}
)

// sum is a checksum of a few words that is never 0. It finds records that weren't written to the end; it needs no
// memory, unlike hash/crc32, whose argument escapes.
func sum(words ...uint64) uint32 {
	h := uint64(0x6772617068766f6c)
	for _, w := range words {
		h = (h ^ w) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	if s := uint32(h >> 32); s != 0 {
		return s
	}
	return 1
}

// sumBytes is sum for a record of the names file: its first word (kind and length), ino, parent and name.
func sumBytes(word uint32, ino, parent uint64, name []byte) uint32 {
	h := uint64(sum(uint64(word), ino, parent))
	for len(name) >= 8 {
		h = uint64(sum(h, binary.LittleEndian.Uint64(name)))
		name = name[8:]
	}
	var last [8]byte
	copy(last[:], name)
	return sum(h, binary.LittleEndian.Uint64(last[:]))
}

func (h *header) wantSum() uint32 {
	return sum(h.magic, uint64(h.version), h.epoch, uint64(h.file))
}

func (r *inodeRec) wantSum() uint32 { return sum(uint64(r.state), r.ino) }

func (r *slotRec) wantSum() uint32 { return sum(uint64(r.state), r.ino, r.slot) }

func (r *runRec) wantSum() uint32 { return sum(uint64(r.state), r.ino, r.first, r.n) }

// wantIdentSum is the checksum of the ident in r.
func (r *inodeRec) wantIdentSum() uint32 {
	return sum(r.identGen, uint64(r.size), uint64(r.ctime), uint64(r.btime), uint64(r.ctimeNS)<<32|uint64(r.btimeNS))
}
