package cow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// imagePage tells for 8 MiB of a file which blocks have a preimage: 0 none, imageHole a hole, imageZero data that is all
// zeros, else its record's number plus imageFirst.
type imagePage [pageBlocks]uint32

const (
	pageBlocks = 2048
	imageHole  = 1
	imageZero  = 2
	imageFirst = 3
)

var errTooMany = errors.New("too many preimages in one epoch")

// saveBlocks saves whole blocks from block first on; blocks of zeros take no room. hole tells which of these are holes.
func (im *images) saveBlocks(label, ino, first uint64, p []byte, hole func(i int) bool) error {
	t := im.table(label)
	n := uint64(len(p) / blockSize)
	zero := make([]uint32, n) // 0 where there is a record to write
	var data uint64
	for i := range zero {
		switch {
		case !isZero(p[i*blockSize : (i+1)*blockSize]):
			data++
		case hole(i):
			zero[i] = imageHole
		default:
			zero[i] = imageZero
		}
	}
	base, file, err := t.reserve(im.dir, data)
	if err != nil {
		return err
	}
	rec := base
	for i := uint64(0); i < n; { // runs of data, each in one write
		j := i
		for j < n && zero[j] == 0 {
			j++
		}
		if j > i {
			if _, err := file.WriteAt(p[i*blockSize:j*blockSize], int64(rec)*blockSize); err != nil {
				return fmt.Errorf("preimages of epoch %d: %w", label, err)
			}
			rec += j - i
		}
		i = j + 1
	}
	t.publish(ino, first, base, zero)
	return nil
}

func (t *imageTable) reserve(dir string, n uint64) (base uint64, f *os.File, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > 0 && t.mu.file == nil {
		name := filepath.Join(dir, fmt.Sprintf("%d.blocks", t.label))
		if t.mu.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			t.mu.file = nil
			return 0, nil, fmt.Errorf("preimages of epoch %d: %w", t.label, err)
		}
	}
	base = t.mu.blocks
	if base+n >= 1<<32-imageFirst {
		return 0, nil, errTooMany
	}
	t.mu.blocks += n
	return base, t.mu.file, nil
}

func (t *imageTable) publish(ino, first, rec uint64, zero []uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := t.mu.pages[ino]
	if pages == nil {
		pages = map[uint64]*imagePage{}
		t.mu.pages[ino] = pages
	}
	for i, z := range zero {
		b := first + uint64(i)
		pg := pages[b/pageBlocks]
		if pg == nil {
			pg = new(imagePage)
			pages[b/pageBlocks] = pg
		}
		if z != 0 {
			pg[b%pageBlocks] = z
			continue
		}
		pg[b%pageBlocks] = uint32(rec + imageFirst)
		rec++
	}
}

// blockLocked returns a block's entry in the page; 0 if there is none.
func (t *imageTable) blockLocked(ino, b uint64) uint32 {
	if pg := t.mu.pages[ino][b/pageBlocks]; pg != nil {
		return pg[b%pageBlocks]
	}
	return 0
}

func (im *images) hasBlock(k, ino, b uint64) bool {
	for _, t := range im.from(k) {
		t.mu.RLock()
		has := t.blockLocked(ino, b) != 0 || t.mu.gone[ino] == goneSaved
		t.mu.RUnlock()
		if has {
			return true
		}
	}
	return false
}

// readBlocks fills those blocks of p that have a preimage for epoch k, sets have for them, and tells whether the rest is to
// be read from a held descriptor, or is zero.
func (im *images) readBlocks(k, ino, first uint64, p []byte, have []bool) (goneKind, error) {
	gone := goneNot
	for _, t := range im.from(k) {
		recs := make([]uint32, len(have))
		t.mu.RLock()
		for i := range have {
			recs[i] = t.blockLocked(ino, first+uint64(i))
		}
		g, file := t.mu.gone[ino], t.mu.file
		t.mu.RUnlock()
		for i, r := range recs {
			blk := p[i*blockSize : (i+1)*blockSize]
			switch {
			case r == 0 || have[i]:
				continue
			case r < imageFirst:
				clear(blk)
			default:
				if _, err := file.ReadAt(blk, int64(r-imageFirst)*blockSize); err != nil {
					return goneNot, fmt.Errorf("preimages of epoch %d: %w", t.label, noEOF(err))
				}
			}
			have[i] = true
		}
		if g != goneNot {
			gone = g
		}
		if g.saved() {
			break
		}
	}
	return gone, nil
}

// next finds the first block in [b, end) whose preimage for epoch k is a hole, or data.
func (im *images) next(k, ino, b, end uint64, hole bool) (uint64, bool) {
	for b < end {
		page, ok := im.nextPage(k, ino, b/pageBlocks)
		if !ok || page*pageBlocks >= end {
			return 0, false
		}
		images := im.page(k, ino, page)
		b = max(b, page*pageBlocks)
		for ; b < end && b/pageBlocks == page; b++ {
			if r := images[b%pageBlocks]; r != 0 && (r == imageHole) == hole {
				return b, true
			}
		}
	}
	return 0, false
}

// nextPage finds the first page at or after one that has preimages.
func (im *images) nextPage(k, ino, from uint64) (page uint64, ok bool) {
	for _, t := range im.from(k) {
		t.mu.RLock()
		for p := range t.mu.pages[ino] {
			if p >= from && (!ok || p < page) {
				page, ok = p, true
			}
		}
		g := t.mu.gone[ino]
		t.mu.RUnlock()
		if g.saved() {
			break
		}
	}
	return page, ok
}

// page gives what epoch k sees of a page: for each block the first preimage.
func (im *images) page(k, ino, page uint64) (out imagePage) {
	for _, t := range im.from(k) {
		t.mu.RLock()
		if pg := t.mu.pages[ino][page]; pg != nil {
			for i, r := range pg {
				if out[i] == 0 {
					out[i] = r
				}
			}
		}
		g := t.mu.gone[ino]
		t.mu.RUnlock()
		if g.saved() {
			break
		}
	}
	return out
}

var zeroBlock [blockSize]byte

func isZero(p []byte) bool { return string(p) == string(zeroBlock[:]) }

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

func noEOF(err error) error {
	if isEOF(err) {
		return io.ErrUnexpectedEOF
	}
	return err
}
