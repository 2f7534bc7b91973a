package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tagSize: what is written consists of tags, which name the operation. So a failure can tell who wrote what is there.
const tagSize = 16

// content is n bytes to be written at off by an operation.
func content(op uint64, off int64, n int) []byte {
	p := make([]byte, n+2*tagSize)
	at := off &^ (tagSize - 1)
	for i := 0; i+tagSize <= len(p); i += tagSize {
		binary.LittleEndian.PutUint64(p[i:], op)
		binary.LittleEndian.PutUint64(p[i+8:], uint64(at)+uint64(i))
	}
	return p[off-at:][:n:n]
}

// block checks one block, as much of it as lies inside the file: each of its sectors must be that of one of its values.
func (c *checker) block(path string, f *object, n int64, p []byte) {
	h := f.blocks[n]
	if h == nil {
		if !zeros(p) {
			c.differ(path, f, "block %d was never written, and holds %s", n, describe(p))
		}
		return
	}
	vals := h.all()
	for at := 0; at < len(p); at += sectorSize {
		s := p[at:min(at+sectorSize, len(p))]
		if !oneOf(vals, at, s) {
			c.differ(path, f, "block %d at %d holds %s, but should hold %s", n, at, describe(s), describeAll(vals, at))
			return
		}
	}
	var b [blockSize]byte
	copy(b[:], p)
	h.settle(&b)
	// What lies behind the end of the file need not be zero on disk. It is seen when a write that makes the file longer has its size
	// on disk and its data not.
	for _, v := range vals {
		if v != nil && len(p) < blockSize {
			old := b
			copy(old[len(p):], v[len(p):])
			h.stale = append(h.stale, &old)
		}
	}
}

func oneOf(vals []block, at int, s []byte) bool {
	for _, v := range vals {
		if v == nil && zeros(s) || v != nil && bytes.Equal(v[at:at+len(s)], s) {
			return true
		}
	}
	return false
}

func describeAll(vals []block, at int) string {
	list := make([]string, 0, len(vals))
	for _, v := range vals {
		if v == nil {
			list = append(list, "zeros")
		} else {
			list = append(list, describe(v[at:at+sectorSize]))
		}
	}
	return strings.Join(list, " or ")
}

// describe tells which operations have written p.
func describe(p []byte) string {
	var ops []string
	for at := 0; at+tagSize <= len(p); at += tagSize {
		op := fmt.Sprintf("op %d", binary.LittleEndian.Uint64(p[at:]))
		if len(ops) == 0 || ops[len(ops)-1] != op {
			ops = append(ops, op)
		}
	}
	if len(ops) > 4 {
		ops = append(ops[:4], "…")
	}
	return strings.Join(ops, ", ")
}

// eachDataBlock calls fn for the blocks that are no holes.
func eachDataBlock(f *os.File, size int64, fn func(n int64, p []byte)) error {
	buf := make([]byte, blockSize)
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		} else if err != nil {
			return &os.PathError{Op: "SEEK_DATA", Path: f.Name(), Err: err}
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "SEEK_HOLE", Path: f.Name(), Err: err}
		}
		for off = start &^ (blockSize - 1); off < end; off += blockSize {
			k, err := f.ReadAt(buf, off)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			fn(off/blockSize, buf[:k])
		}
	}
	return nil
}

func zeros(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }
