package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	usualSize = 1 << 20
	farSize   = 64 << 30
	hugeFolio = 2 << 20 // a store through a mapping may allocate all blocks of its folio (ext4 since Linux 6.16)
)

// offset is mostly near the start, sometimes in a sparse file's far end.
func (w *worker) offset(n *node) int64 {
	switch w.rng.IntN(20) {
	case 0:
		return w.rng.Int64N(farSize)
	case 1, 2, 3:
		return w.rng.Int64N(usualSize)
	case 4, 5, 6, 7, 8:
		return w.rng.Int64N(usualSize) &^ (blockSize - 1)
	default:
		return w.rng.Int64N(min(n.content.size, usualSize) + 1)
	}
}

func (w *worker) length() int {
	switch w.rng.IntN(8) {
	case 0:
		return 1 + w.rng.IntN(300<<10)
	case 1, 2:
		return 1 + w.rng.IntN(200)
	case 3, 4, 5:
		return blockSize
	default:
		return 1 + w.rng.IntN(3*blockSize)
	}
}

// bytes are zero in one of eight cases, random otherwise.
func (w *worker) bytes(n int) []byte {
	p := make([]byte, n)
	if w.rng.IntN(8) == 0 {
		return p
	}
	for i := 0; i < len(p); i += 8 {
		v := w.rng.Uint64()
		for k := range min(8, len(p)-i) {
			p[i+k] = byte(v >> (8 * k))
		}
	}
	return p
}

func (w *worker) create() error {
	if w.crowded() {
		return nil
	}
	p := w.anyPlace()
	mode := uint32(w.rng.IntN(0o1000)) | 0o600
	w.note("create %q mode %o", p.full(), mode)
	f, err := openFile(p.full(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
	if p.node != nil {
		return expect("create of a name that is taken", err, unix.EEXIST)
	}
	if err != nil {
		return err
	}
	n := newNode(p.dir, unix.S_IFREG|mode)
	p.dir.entries[p.name] = n
	p.dir.touch()
	err = w.writeAt(f, n, 0, w.bytes(w.length()))
	return errors.Join(err, f.Close())
}

func (w *worker) writeAt(f *os.File, n *node, off int64, p []byte) error {
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	n.content.write(off, p)
	n.touch()
	return nil
}

func (w *worker) pwrite() error {
	return w.withFile(func(f *os.File, n *node) error {
		off, p := w.offset(n), w.bytes(w.length())
		w.noteFile(n, "pwrite %q at %d, %d bytes", f.Name(), off, len(p))
		return w.writeAt(f, n, off, p)
	})
}

func (w *worker) append() error {
	p, ok := w.pickFile()
	if !ok || p.node.content.size > 2*usualSize {
		return nil
	}
	f, err := openFile(p.full(), unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	data := w.bytes(w.length())
	w.noteFile(p.node, "append %q, %d bytes at %d", p.full(), len(data), p.node.content.size)
	if _, err = f.Write(data); err == nil {
		p.node.content.write(p.node.content.size, data)
		p.node.touch()
	}
	return errors.Join(err, f.Close())
}

// direct writes an aligned block with O_DIRECT, where the filesystem has it.
func (w *worker) direct() error {
	p, ok := w.pickFile()
	if !ok {
		return nil
	}
	f, err := openFile(p.full(), unix.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil
	} else if err != nil {
		return err
	}
	off := w.rng.Int64N(usualSize) &^ (blockSize - 1)
	data := w.bytes(blockSize * (1 + w.rng.IntN(4)))
	w.noteFile(p.node, "direct %q at %d, %d bytes", p.full(), off, len(data))
	buf := aligned(len(data))
	copy(buf, data)
	return errors.Join(w.writeAt(f, p.node, off, buf), f.Close())
}

func aligned(n int) []byte {
	p := make([]byte, n+blockSize)
	skip := -int(uintptr(unsafe.Pointer(&p[0]))) & (blockSize - 1)
	return p[skip : skip+n : skip+n]
}

// mmap stores through a shared mapping and syncs it.
func (w *worker) mmap() error {
	return w.withFile(func(f *os.File, n *node) error {
		size := min(n.content.size, 2*usualSize)
		if size == 0 {
			return nil
		}
		off := w.rng.Int64N(size)
		data := w.bytes(int(min(int64(w.length()), size-off)))
		w.noteFile(n, "mmap %q at %d, %d bytes", f.Name(), off, len(data))
		start := off &^ (blockSize - 1)
		m, err := unix.Mmap(int(f.Fd()), start, int(off-start)+len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("mmap: %w", err)
		}
		copy(m[off-start:], data)
		if w.rng.IntN(2) == 0 {
			err = unix.Msync(m, unix.MS_SYNC)
		}
		n.content.write(off, data)
		n.content.allocate(off&^(hugeFolio-1), min(hugeFolio, n.content.size-off&^(hugeFolio-1)))
		n.touch()
		return errors.Join(err, unix.Munmap(m))
	})
}

func (w *worker) truncate() error {
	return w.withFile(func(f *os.File, n *node) error {
		size := w.offset(n)
		if w.rng.IntN(3) == 0 {
			size = w.rng.Int64N(n.content.size + 1)
		}
		w.noteFile(n, "truncate %q from %d to %d", f.Name(), n.content.size, size)
		if err := f.Truncate(size); err != nil {
			return err
		}
		n.content.truncate(size)
		n.touch()
		return nil
	})
}

func (w *worker) fallocate() error {
	modes := []uint32{
		0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE,
		unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE,
	}
	mode := modes[w.rng.IntN(len(modes))]
	return w.withFile(func(f *os.File, n *node) error {
		off, length := w.rng.Int64N(usualSize), int64(w.length())
		if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
			off, length = off&^(blockSize-1), roundUp(length)
			if off+length >= n.content.size || n.content.size > 4*usualSize {
				return nil
			}
		}
		w.noteFile(n, "fallocate %q mode %#x at %d, %d bytes", f.Name(), mode, off, length)
		err := unix.Fallocate(int(f.Fd()), mode, off, length)
		if errors.Is(err, unix.EOPNOTSUPP) && mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
			return nil // what a filesystem can't do, it must leave undone
		} else if err != nil {
			return fmt.Errorf("fallocate: %w", err)
		}
		n.touch()
		n.content.applyFallocate(mode, off, length)
		return nil
	})
}

func (c *content) applyFallocate(mode uint32, off, n int64) {
	switch {
	case mode&unix.FALLOC_FL_PUNCH_HOLE != 0:
		c.punch(off, n)
		return
	case mode&unix.FALLOC_FL_COLLAPSE_RANGE != 0:
		c.collapse(off, n)
		return
	case mode&unix.FALLOC_FL_INSERT_RANGE != 0:
		c.insert(off, n)
		return
	case mode&unix.FALLOC_FL_ZERO_RANGE != 0:
		c.zeroRange(off, n)
	default:
		c.allocate(off, n)
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		c.size = max(c.size, off+n)
	}
}

func (w *worker) copyRange() error {
	src, ok := w.pickFile()
	dst, _ := w.pickFile()
	if !ok || src.node == dst.node || src.node.content.size == 0 {
		return nil
	}
	in, err := openFile(src.full(), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := openFile(dst.full(), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	from := w.rng.Int64N(min(src.node.content.size, usualSize))
	to := w.rng.Int64N(usualSize)
	if w.rng.IntN(2) == 0 {
		from, to = from&^(blockSize-1), to&^(blockSize-1)
	}
	n := int(min(int64(w.length()), src.node.content.size-from))
	w.noteFile(dst.node, "copy %d bytes of %q at %d to %q at %d", n, src.full(), from, dst.full(), to)
	for n > 0 {
		a, b := from, to
		k, err := unix.CopyFileRange(int(in.Fd()), &a, int(out.Fd()), &b, n, 0)
		if err != nil {
			return fmt.Errorf("copy_file_range: %w", err)
		}
		if k == 0 {
			return fmt.Errorf("copy_file_range ended %d bytes early", n)
		}
		dst.node.content.write(to, src.node.content.read(from, k))
		dst.node.touch()
		n, from, to = n-k, from+int64(k), to+int64(k)
	}
	// A copy may share or skip holes: zero blocks are either.
	dst.node.content.relaxZeros()
	return nil
}

// relaxZeros lets blocks of zeros be holes or not.
func (c *content) relaxZeros() {
	for num, b := range c.blocks {
		if b != nil && *b == (block{}) {
			c.blocks[num] = nil
		}
	}
}

func (w *worker) read() error {
	return w.withFile(func(f *os.File, n *node) error {
		off := w.offset(n)
		p := make([]byte, w.length())
		k, err := f.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		w.noteFile(n, "read %q at %d, %d bytes", f.Name(), off, len(p))
		if want := n.content.read(off, len(p)); !bytes.Equal(p[:k], want) {
			at := mismatch(p[:k], want)
			return fmt.Errorf("%q at %d: read %d bytes, want %d, different from %d on: %x, want %x",
				f.Name(), off, k, len(want), off+int64(at), head(p[:k], at), head(want, at))
		}
		return nil
	})
}

func (w *worker) fsync() error {
	return w.withFile(func(f *os.File, n *node) error {
		w.noteFile(n, "fsync %q", f.Name())
		return f.Sync()
	})
}

// keepOpen opens a file for later use; its names may go meanwhile.
func (w *worker) keepOpen() error {
	p, ok := w.pickFile()
	if !ok || len(w.open) >= maxOpen {
		return nil
	}
	w.note("keep %q open", p.full())
	f, err := openFile(p.full(), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	w.open = append(w.open, &handle{f, p.node})
	return nil
}

func (w *worker) closeOne() error {
	if len(w.open) == 0 {
		return nil
	}
	i := w.rng.IntN(len(w.open))
	h := w.open[i]
	w.note("close %q", h.f.Name())
	w.open = append(w.open[:i:i], w.open[i+1:]...)
	return h.f.Close()
}

// tmpfile writes a file without a name and then gives it one.
func (w *worker) tmpfile() error {
	if w.crowded() {
		return nil
	}
	p := w.freePlace()
	fd, err := unix.Open(p.path, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return &os.PathError{Op: "open O_TMPFILE", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), p.path+" (no name)")
	defer f.Close()
	n := newNode(p.dir, unix.S_IFREG|0o640)
	if err := w.writeAt(f, n, 0, w.bytes(w.length())); err != nil {
		return err
	}
	if w.rng.IntN(4) == 0 {
		w.note("tmpfile in %q, dropped", p.path)
		return nil
	}
	w.note("tmpfile in %q, named %q", p.path, p.name)
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, p.full(), unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "linkat", Old: "O_TMPFILE", New: p.full(), Err: err}
	}
	p.dir.entries[p.name] = n
	p.dir.touch()
	return nil
}
