package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The first two pages of bbolt's file are metas: page header, magic (4), version (4), page size (4), flags (4), root bucket (16), free list's
// page (8), number of pages (8), transaction (8), FNV-1a of the 56 bytes before it (8).
const (
	metaLen      = 64
	metaMagic    = 0xED0CDAED
	pageFreelist = 0x10
	minPageSize  = 1 << 9
	maxPage      = 1 << 16
)

// fileHead is what bbolt relies upon before it has read anything else.
type fileHead struct{ pageSize, root, freelist, pages, tx uint64 }

// checkFile looks at what bbolt takes on trust when it opens its file. A damaged free list makes it overwrite pages that are in use. Where one of
// the two metas is damaged it goes on with the other, the index as it was one transaction ago: before the newest snapshot was complete,
// perhaps. Nothing that graphvol or a power cut does can leave that, a meta being within one sector. A missing or empty file is no
// problem, and one that somebody else has open is left to bbolt.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if lockIndex(f) != nil {
		return nil
	}
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	head, err := readHead(f)
	if err != nil {
		return err
	}
	if head.pages > uint64(st.Size())/head.pageSize { // reading what is missing would be a memory fault
		return corrupt("the file", fmt.Sprintf("has %d bytes and should have %d pages of %d", st.Size(), head.pages, head.pageSize), nil)
	}
	if err := checkFreelist(f, head); err != nil {
		return err
	}
	return checkBranches(f, head)
}

// readHead reads both metas, and returns the newer one.
func readHead(f io.ReaderAt) (fileHead, error) {
	first, err := readMeta(f, 0)
	if err != nil {
		return first, err
	}
	second, err := readMeta(f, first.pageSize)
	if err != nil {
		return second, err
	}
	if second.tx > first.tx {
		return second, nil
	}
	return first, nil
}

func readMeta(f io.ReaderAt, off uint64) (h fileHead, err error) {
	var p [pageHead + metaLen]byte
	if _, err := f.ReadAt(p[:], int64(off)); err != nil {
		return h, corrupt("the file", "unreadable or cut short", err)
	}
	m := p[pageHead:]
	sum := fnv.New64a()
	sum.Write(m[:metaLen-8])
	if word32(m) != metaMagic || word64(m[metaLen-8:]) != sum.Sum64() {
		return h, corrupt("the file", fmt.Sprintf("its meta page at %d is damaged, or it is no index", off), nil)
	}
	h = fileHead{pageSize: uint64(word32(m[8:])), root: word64(m[16:]), freelist: word64(m[32:]), pages: word64(m[40:]), tx: word64(m[48:])}
	if h.pageSize < minPageSize || h.pageSize > maxPage {
		return h, corrupt("the file", fmt.Sprintf("has pages of %d bytes", h.pageSize), nil)
	}
	return h, nil
}

// checkFreelist checks that the list of free pages is one.
func checkFreelist(f io.ReaderAt, h fileHead) error {
	bad := func(reason string, err error) error { return corrupt("free list", reason, err) }
	if h.freelist < 2 || h.freelist >= h.pages {
		return bad(fmt.Sprintf("page %d of %d", h.freelist, h.pages), nil)
	}
	w := pageWalk{file: f, pageSize: h.pageSize, pages: h.pages}
	p, err := w.read(h.freelist)
	if err != nil {
		return bad("unreadable", err)
	}
	if word64(p) != h.freelist || word16(p[8:]) != pageFreelist {
		return bad(fmt.Sprintf("page %d is another one", h.freelist), nil)
	}
	count, ids := uint64(word16(p[10:])), p[pageHead:]
	if count == 0xffff { // too many for the header's field
		count, ids = word64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return bad(fmt.Sprintf("no room for %d pages", count), nil)
	}
	last := uint64(1)
	for ; count > 0; count, ids = count-1, ids[8:] {
		id := binary.NativeEndian.Uint64(ids)
		if id <= last || id >= h.pages {
			return bad(fmt.Sprintf("page %d after %d, of %d", id, last, h.pages), nil)
		}
		last = id
	}
	return nil
}
