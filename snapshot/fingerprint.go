package snapshot

import (
	"hash/crc32"
	"slices"

	"graphvol/index"
)

const printPageSegments = index.BlocksPerFingerprintPage / SegmentBlocks

// minPrintBlocks is the number of blocks up to which a file has no fingerprints: comparing it with what is stored costs one read.
const minPrintBlocks = SegmentBlocks

// fingerprint is a block's CRC-32C. 0 stands for "unknown".
func fingerprint(table *crc32.Table, block []byte) uint32 { return crc32.Checksum(block, table) }

// printPages are the fingerprints of a file while it is sealed. Segments are asked for in ascending order; a page is handed to
// the seal when all of its segments were passed.
type printPages struct {
	s     *sealer
	ino   uint64
	off   bool                    // the file has none
	fresh bool                    // nothing of the index holds
	pages []index.FingerprintPage // in work, ascending
}

func newPrintPages(s *sealer, ino uint64, blocks uint64, fresh bool) *printPages {
	if fresh {
		s.dropPrints(ino)
	}
	return &printPages{s: s, ino: ino, off: blocks <= minPrintBlocks, fresh: fresh}
}

// segment gives the sums of a segment's blocks, to read and to write until the segment is passed; nil if the file has none.
func (p *printPages) segment(seg uint64) ([]uint32, error) {
	page := seg / printPageSegments
	if p.off || page > 1<<32-1 {
		return nil, nil
	}
	if k := len(p.pages); k == 0 || p.pages[k-1].Page != uint32(page) {
		sums := make([]uint32, index.BlocksPerFingerprintPage)
		if !p.fresh {
			if _, err := p.s.repo.db.Fingerprints(p.ino, uint32(page), sums); err != nil {
				return nil, err
			}
		}
		p.pages = append(p.pages, index.FingerprintPage{Ino: p.ino, Page: uint32(page), Sums: sums})
	}
	at := seg % printPageSegments * SegmentBlocks
	return p.pages[len(p.pages)-1].Sums[at : at+SegmentBlocks], nil
}

// passed says that all segments up to seg are done.
func (p *printPages) passed(seg uint64) {
	for len(p.pages) > 0 && uint64(p.pages[0].Page) < seg/printPageSegments {
		p.s.keepPrints(p.pages[0])
		p.pages = p.pages[1:]
	}
}

func (p *printPages) finish() {
	for _, page := range p.pages {
		p.s.keepPrints(page)
	}
	p.pages = nil
}

func (s *sealer) dropPrints(ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.dropPrints = append(s.mu.dropPrints, ino)
}

func (s *sealer) keepPrints(p index.FingerprintPage) {
	n := len(p.Sums)
	for n > 0 && p.Sums[n-1] == 0 {
		n--
	}
	if n < len(p.Sums)/2 {
		p.Sums = slices.Clone(p.Sums[:n])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.printBytes += 4 * len(p.Sums); s.mu.printBytes <= fingerprintLimit {
		s.mu.prints = append(s.mu.prints, p)
		return
	}
	s.mu.printBytes = fingerprintLimit
	// An old page may say "changed" of a block that is not; that costs space only, but less with no page at all.
	if !s.mu.printsShort {
		s.mu.printsShort = true
		s.repo.log.Info("fingerprints of this snapshot are incomplete; the next one compares more with the store", "limit", fingerprintLimit)
	}
}
