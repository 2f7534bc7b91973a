package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	pieceSize  = 8 << 20 // what one goroutine restores of a large file at a time
	largeFiles = 3       // files of more than a piece at a time
	copyUnit   = 1 << 20 // bytes read and written at once, a multiple of SegmentSize
)

// copyBuffers are what should be there, and what is.
type copyBuffers struct{ want, have [copyUnit]byte }

// content makes the file's bytes those of the snapshot. The error is of the destination; damage of the source is noted.
func (f *destFile) content() error {
	var wg sync.WaitGroup
	f.pieces(&wg)
	wg.Wait()
	return f.failed()
}

// pieces restores the file piece by piece, in as many goroutines as there are to spare. Another large file begins when all of this one's have begun.
func (f *destFile) pieces(wg *sync.WaitGroup) {
	if f.size > pieceSize {
		f.r.large.Lock()
		defer f.r.large.Unlock()
	}
	for off := int64(0); off < f.size && f.failed() == nil; {
		start, _, err := f.src.NextData(f.r.ctx, off)
		if errors.Is(err, io.EOF) {
			start, err = f.size, nil
		}
		if err == nil && start-off >= pieceSize { // a large hole is no work for many
			start = min(start, f.size)
			f.piece(off, start)
			off = start
			continue
		}
		end := off + min(pieceSize, f.size-off) // piece meets the error again, if there was one
		at := off
		select {
		case f.r.spare <- struct{}{}:
			wg.Go(func() {
				f.piece(at, end)
				<-f.r.spare
			})
		default:
			f.piece(at, end)
		}
		off = end
	}
}

func (f *destFile) piece(off, end int64) {
	bufs, _ := f.r.bufs.Get().(*copyBuffers)
	defer f.r.bufs.Put(bufs)
	c := &copier{destFile: f, bufs: bufs}
	if err := c.copy(off, end); err != nil {
		f.fail(err)
	}
	f.r.written.Add(c.written)
	if c.written > 0 && f.fd >= 0 && !f.r.opts.DryRun {
		// So that the disk isn't idle until the sync at the end. It may refuse: that sync has the errors.
		_ = unix.SyncFileRange(f.fd, off, end-off, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// copier brings ranges of a file into the state of the snapshot.
type copier struct {
	*destFile
	bufs    *copyBuffers
	written int64
}

func (c *copier) copy(off, end int64) error {
	for off < end {
		start, stop, err := c.src.NextData(c.r.ctx, off)
		if errors.Is(err, io.EOF) {
			start, stop, err = end, end, nil
		}
		if err != nil {
			if c.r.stopped() {
				return err
			}
			c.damage(off, end-off, err)
			c.r.progress(end - off)
			return nil
		}
		start, stop = min(start, end), min(stop, end)
		if err := c.hole(off, start); err != nil {
			return err
		}
		c.r.progress(start - off)
		for off = start; off < stop; {
			n := min(copyUnit-off%copyUnit, stop-off)
			if err := c.data(off, n); err != nil {
				return err
			}
			c.r.progress(n)
			off += n
		}
	}
	return nil
}

// data makes the bytes of a range those of the snapshot.
func (c *copier) data(off, n int64) error {
	if err := c.failed(); err != nil {
		return err
	}
	if c.fd < 0 {
		c.written += n
		return nil
	}
	want := c.bufs.want[:n]
	if err := c.read(want, off); err != nil {
		return c.salvage(off, n)
	}
	return c.put(want, off)
}

func (c *copier) read(p []byte, off int64) error {
	n, err := c.src.ReadAt(c.r.ctx, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("it ends at byte %d: %w", off+int64(n), io.ErrUnexpectedEOF)
	}
	return err
}

// salvage restores those segments of a range that can be read.
func (c *copier) salvage(off, n int64) error {
	for end := off + n; off < end; {
		part := c.bufs.want[:min(SegmentSize-off%SegmentSize, end-off)]
		err := c.read(part, off)
		if c.r.stopped() {
			return c.r.ctx.Err()
		}
		if err != nil {
			c.damage(off, int64(len(part)), err)
		} else if err := c.put(part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return nil
}

// put writes the blocks that differ. Zeros that are a hole in the destination stay one.
func (c *copier) put(want []byte, off int64) error {
	if !c.old || off >= c.was {
		return c.write(want, off)
	}
	have := c.bufs.have[:len(want)]
	n, err := preadFull(c.fd, have, off)
	if err != nil {
		return fmt.Errorf("read what is there: %w", err)
	}
	clear(have[n:])
	return eachDiffering(want, have, func(from, to int) error { return c.write(want[from:to], off+int64(from)) })
}

// eachDiffering calls fn for the runs of blocks in which two slices of the same length differ.
func eachDiffering(a, b []byte, fn func(from, to int) error) error {
	if bytes.Equal(a, b) {
		return nil
	}
	for from := 0; from < len(a); {
		to := from
		for to < len(a) {
			next := min(to+BlockSize, len(a))
			if bytes.Equal(a[to:next], b[to:next]) {
				break
			}
			to = next
		}
		if to > from {
			if err := fn(from, to); err != nil {
				return err
			}
		}
		from = to + BlockSize // the block at to is equal
	}
	return nil
}

func (c *copier) write(p []byte, off int64) error {
	c.written += int64(len(p))
	if c.r.opts.DryRun {
		return nil
	}
	for len(p) > 0 {
		n, err := unix.Pwrite(c.fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// hole makes a range a hole.
func (c *copier) hole(off, end int64) error {
	for c.old && off < min(end, c.was) {
		if err := c.failed(); err != nil {
			return err
		}
		start, stop, err := nextData(c.fd, off)
		if errors.Is(err, io.EOF) || err == nil && start >= end {
			return nil
		}
		if err != nil {
			return err
		}
		off = min(stop, end)
		if err := c.punch(start, off); err != nil {
			return err
		}
	}
	return nil
}

// punch makes data a hole, or zeros on a filesystem without holes. What was zero doesn't count as written.
func (c *copier) punch(off, end int64) error {
	zeros, have := c.bufs.want[:], c.bufs.have[:]
	clear(zeros)
	var filled []Range
	for at := off; at < min(end, c.was); at += copyUnit {
		n, err := preadFull(c.fd, have[:min(copyUnit, end-at, c.was-at)], at)
		if err != nil {
			return fmt.Errorf("read what is there: %w", err)
		}
		_ = eachDiffering(zeros[:n], have[:n], func(from, to int) error {
			filled = append(filled, Range{at + int64(from), int64(to - from)})
			c.written += int64(to - from)
			return nil
		})
	}
	if c.r.opts.DryRun {
		return nil
	}
	whole := end
	if part := end % BlockSize; part > 0 && end <= math.MaxInt64-BlockSize { // at the end of the file
		whole += BlockSize - part
	}
	err := retry(func() error {
		return unix.Fallocate(c.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, whole-off)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		if err != nil {
			err = fmt.Errorf("make a hole: %w", err)
		}
		return err
	}
	for _, g := range filled {
		c.written -= g.Len
		for g.Len > 0 {
			n := min(g.Len, copyUnit)
			if err := c.write(zeros[:n], g.Off); err != nil {
				return err
			}
			g.Off, g.Len = g.Off+n, g.Len-n
		}
	}
	return nil
}

// preadFull reads until p is full or the file ends.
func preadFull(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := unix.Pread(fd, p[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}
