package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// Parts of bbolt's file format, in the machine's byte order.
const (
	pageHead    = 16 // id (8), flags (2), number of elements (2), overflow (4)
	elementLen  = 16
	pageBranch  = 1 // element: position (4), length of key (4), page (8)
	pageLeaf    = 2 // element: flags (4), position (4), lengths of key and value (4, 4)
	leafBucket  = 1 // flag of a leaf's element: the value is a bucket
	bucketHead  = 16
	maxDepth    = 64
	maxPageSize = 1 << 28 // with what overflows; more than any row of an index
)

// pageWalk reads the pages of the database from the file and checks that nothing in them leads out of bounds or around in a circle.
// bbolt trusts its file: it follows what is wrong there through its mapping, which can end in a fault that kills
// the process. So this comes before bbolt's own check.
type pageWalk struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64 // number of pages in use
	seen     map[uint64]bool
	check    *checker
}

// pages checks the pages that tx sees. While it runs nobody may write. It returns false if bbolt shouldn't be let at them.
func (c *checker) pages(path string, tx *bbolt.Tx) bool {
	f, err := os.Open(path)
	if err != nil {
		c.add(err)
		return false
	}
	defer f.Close()
	size := uint64(tx.DB().Info().PageSize)
	w := pageWalk{file: f, pageSize: size, pages: uint64(tx.Size()) / size, seen: make(map[uint64]bool), check: c}
	before := len(c.problems)
	w.page(uint64(tx.Cursor().Bucket().Root()), nil, 0)
	return len(c.problems) == before && c.ctx.Err() == nil
}

// bad notes a problem with a page, and tells whether to go on.
func (w *pageWalk) bad(id uint64, format string, args ...any) bool {
	return w.check.add(badPage(id, format, args...))
}

func badPage(id uint64, format string, args ...any) error {
	return corrupt("pages", fmt.Sprintf("page %d ", id)+fmt.Sprintf(format, args...), nil)
}

// unreadPage says that a page could not be read; err may be the disk's.
func unreadPage(id uint64, err error) error {
	return corrupt("pages", fmt.Sprintf("page %d", id), err)
}

// page checks a page and all below it; its keys must not be less than least. It returns false when there is no use in going on.
func (w *pageWalk) page(id uint64, least []byte, depth int) bool {
	if !w.check.add(nil) {
		return false
	}
	if id < 2 || id >= w.pages || depth > maxDepth {
		return w.bad(id, "is not one of the %d pages, or too deep", w.pages)
	}
	p, err := w.read(id)
	if err != nil {
		return w.check.add(unreadPage(id, err))
	}
	for n := range uint64(len(p)) / w.pageSize {
		if w.seen[id+n] {
			return w.bad(id+n, "is used twice")
		}
		w.seen[id+n] = true
	}
	if got := word64(p); got != id {
		return w.bad(id, "says that it is page %d", got)
	}
	return w.elements(id, p, least, depth)
}

// read returns a page with what overflows.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	var head [pageHead]byte
	if _, err := w.file.ReadAt(head[:], int64(id*w.pageSize)); err != nil {
		return nil, err
	}
	n := 1 + uint64(word32(head[12:]))
	if n > w.pages-id || n*w.pageSize > maxPageSize {
		return nil, fmt.Errorf("is said to have %d pages", n)
	}
	p := make([]byte, n*w.pageSize)
	_, err := w.file.ReadAt(p, int64(id*w.pageSize))
	return p, err
}

// elements checks the elements of a page, which may be one within a value.
func (w *pageWalk) elements(id uint64, p, least []byte, depth int) bool {
	flags, count, err := elementsOf(p)
	if err != nil {
		return w.bad(id, "%v", err)
	}
	for i := range count {
		e, err := elementAt(p, flags, i)
		if err != nil {
			return w.bad(id, "%v", err)
		}
		if order := bytes.Compare(least, e.key); order > 0 || order == 0 && i > 0 {
			return w.bad(id, "has a key out of order")
		}
		least = e.key
		switch {
		case flags == pageBranch:
			if !w.page(e.page, e.key, depth+1) {
				return false
			}
		case e.bucket:
			if !w.bucket(id, e.value, depth) {
				return false
			}
		}
	}
	return true
}

// element is one of a page.
type element struct {
	key, value []byte
	page       uint64 // of a branch's
	bucket     bool   // the value is a bucket
}

// elementAt returns element i of a page that has room for it.
func elementAt(p []byte, flags uint16, i uint64) (e element, err error) {
	at := pageHead + i*elementLen
	head := p[at:]
	pos, keyLen, valueLen := word32(head), word32(head[4:]), uint32(0)
	if flags == pageLeaf {
		pos, keyLen, valueLen = word32(head[4:]), word32(head[8:]), word32(head[12:])
		e.bucket = word32(head)&leafBucket != 0
	} else {
		e.page = word64(head[8:])
	}
	from := at + uint64(pos)
	mid := from + uint64(keyLen)
	if mid+uint64(valueLen) > uint64(len(p)) {
		return e, errors.New("has an element that ends beyond it")
	}
	e.key, e.value = p[from:mid], p[mid:mid+uint64(valueLen)]
	return e, nil
}

// boundsOf checks that the elements of a page lie within it, also those of buckets that have no pages of their own.
func boundsOf(p []byte, depth int) error {
	flags, count, err := elementsOf(p)
	if err == nil && depth > maxDepth {
		err = errors.New("has buckets in buckets without end")
	}
	for i := uint64(0); i < count && err == nil; i++ {
		var e element
		if e, err = elementAt(p, flags, i); err != nil || !e.bucket {
			continue
		}
		switch {
		case len(e.value) < bucketHead, word64(e.value) == 0 && len(e.value) < bucketHead+pageHead:
			err = fmt.Errorf("has a bucket of %d bytes", len(e.value))
		case word64(e.value) == 0:
			err = boundsOf(e.value[bucketHead:], depth+1)
		}
	}
	return err
}

// elementsOf tells of which kind a page is and how many elements it has, for which there must be room.
func elementsOf(p []byte) (flags uint16, count uint64, err error) {
	flags, count = word16(p[8:]), uint64(word16(p[10:]))
	if flags != pageBranch && flags != pageLeaf || flags == pageBranch && count == 0 {
		return 0, 0, fmt.Errorf("has flags %#x and %d elements", flags, count)
	}
	if pageHead+count*elementLen > uint64(len(p)) {
		return 0, 0, fmt.Errorf("has no room for its %d elements", count)
	}
	return flags, count, nil
}

// bucket checks a bucket that is the value of an element of page id.
func (w *pageWalk) bucket(id uint64, value []byte, depth int) bool {
	if len(value) < bucketHead {
		return w.bad(id, "has a bucket of %d bytes", len(value))
	}
	if root := word64(value); root != 0 {
		return w.page(root, nil, depth+1)
	}
	if len(value) < bucketHead+pageHead || depth > maxDepth {
		return w.bad(id, "has a bucket of %d bytes", len(value))
	}
	return w.elements(id, value[bucketHead:], nil, depth+1)
}

func word16(p []byte) uint16 { return binary.NativeEndian.Uint16(p) }
func word32(p []byte) uint32 { return binary.NativeEndian.Uint32(p) }
func word64(p []byte) uint64 { return binary.NativeEndian.Uint64(p) }
