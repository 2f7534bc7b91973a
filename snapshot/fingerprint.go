package snapshot

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

const (
	fingerprintLen    = 4
	printPageSegments = 64 // 8 MiB of a file have a page of 8 KiB
	printPageLen      = printPageSegments * SegmentBlocks * fingerprintLen
)

// fingerprint is a block's CRC-32C. 0 stands for "unknown".
func fingerprint(table *crc32.Table, block []byte) uint32 { return crc32.Checksum(block, table) }

// fingerprints are those of adjacent blocks, as they are stored.
type fingerprints []byte

func (p fingerprints) get(b int) uint32 { return binary.LittleEndian.Uint32(p[fingerprintLen*b:]) }

func (p fingerprints) set(b int, sum uint32) {
	binary.LittleEndian.PutUint32(p[fingerprintLen*b:], sum)
}

// filePrints are the fingerprints of a file while it is sealed. Segments are asked for in ascending order; a page is written
// when all of its segments were passed. No method returns an error: after one there are no fingerprints.
type filePrints struct {
	seal  *sealPrints
	ino   uint64
	off   bool        // the file has none
	fresh bool        // nothing that is stored counts
	cut   int64       // what is stored from this offset on is of blocks beyond the end; -1 if there are none
	pages []printPage // in work, ascending
	spare fingerprints
	file  *os.File // nil until the first page
}

type printPage struct {
	number uint64
	sums   fingerprints
}

// newFilePrints is for a file of so many blocks, which had oldBlocks.
func (s *sealPrints) newFilePrints(ino, blocks, oldBlocks uint64, fresh bool) *filePrints {
	p := &filePrints{seal: s, ino: ino, off: blocks <= s.dir.smallFile, fresh: fresh, cut: -1}
	if blocks < oldBlocks {
		p.cut = int64(blocks) * fingerprintLen
	}
	return p
}

// segment gives the fingerprints of a segment's blocks, to read and to write until the segment is passed; nil if the file has none.
func (p *filePrints) segment(seg uint64) fingerprints {
	if p.off {
		return nil
	}
	number := seg / printPageSegments
	if k := len(p.pages); k == 0 || p.pages[k-1].number != number {
		page := printPage{number: number, sums: p.spare}
		if p.spare = nil; page.sums == nil {
			page.sums = make(fingerprints, printPageLen)
		}
		if err := p.read(page); err != nil {
			p.fail(err)
			return nil
		}
		p.pages = append(p.pages, page)
	}
	const length = SegmentBlocks * fingerprintLen
	at := seg % printPageSegments * length
	return p.pages[len(p.pages)-1].sums[at : at+length]
}

// read fills a page; what isn't stored is unknown.
func (p *filePrints) read(page printPage) error {
	n, err := 0, p.open()
	if err == nil && !p.fresh {
		n, err = p.file.ReadAt(page.sums, page.offset())
	}
	clear(page.sums[n:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (p printPage) offset() int64 { return int64(p.number) * printPageLen }

func (p *filePrints) open() (err error) {
	if p.file != nil {
		return nil
	}
	flags := os.O_RDWR | os.O_CREATE
	if p.fresh {
		flags |= os.O_TRUNC
	}
	if p.file, err = os.OpenFile(p.seal.dir.name(p.ino), flags, 0o600); err != nil {
		return err
	}
	if p.cut >= 0 && !p.fresh {
		return p.file.Truncate(p.cut)
	}
	return nil
}

// passed says that all segments before seg are done.
func (p *filePrints) passed(seg uint64) { p.write(seg / printPageSegments) }

// finish writes what isn't written yet.
func (p *filePrints) finish() { p.write(^uint64(0)) }

// write writes the pages before a number.
func (p *filePrints) write(before uint64) {
	for len(p.pages) > 0 && p.pages[0].number < before {
		if _, err := p.file.WriteAt(p.pages[0].sums, p.pages[0].offset()); err != nil {
			p.fail(err)
			return
		}
		p.spare, p.pages = p.pages[0].sums, p.pages[1:]
	}
}

// fail makes the file one without fingerprints. Workers may have some in hand; these go nowhere.
func (p *filePrints) fail(err error) {
	p.off, p.pages = true, nil
	p.close()
	p.seal.fail(p.ino, err)
}

func (p *filePrints) close() {
	if p.file != nil {
		_ = p.file.Close() // nothing is owed to hints
		p.file = nil
	}
}
