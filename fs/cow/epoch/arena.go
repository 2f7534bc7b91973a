package epoch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"graphvol/internal/mapped"
)

// An arena doubles from firstSegment until it has a segment of maxSegment; then it grows by that.
const (
	firstSegment = 64 << 10
	maxSegment   = 4 << 20
	doublings    = 6 // firstSegment << doublings == maxSegment
)

// segmentEnd is the offset at which segment k ends, and k+1 begins.
func segmentEnd(k int) uint64 {
	if k <= doublings {
		return firstSegment << k
	}
	return maxSegment * uint64(1+k-doublings)
}

func segmentStart(k int) uint64 {
	if k == 0 {
		return 0
	}
	return segmentEnd(k - 1)
}

// flagNocow is FS_NOCOW_FL of linux/fs.h.
const flagNocow = 0x00800000

// arena is memory that grows and never moves. It is a shared mapping of a file, so that it survives the process; if the file can't
// grow, or there is none, it goes on in ordinary memory.
type arena struct {
	maps *mapped.Memory
	// onFail is called once, with mu held, when a segment can't be in the file.
	onFail func(error)

	mu struct {
		sync.Mutex
		file   *os.File // nil: ordinary memory
		failed bool     // part of the arena isn't in the file
		segs   [][]byte
		pos    uint64 // where the next record goes; in the last segment
	}
}

// allocLocked returns n zero bytes at an 8-byte boundary, and their offset. n must be smaller than firstSegment.
func (a *arena) allocLocked(n uint64) (unsafe.Pointer, uint64) {
	k := len(a.mu.segs) - 1
	if k < 0 || a.mu.pos+n > segmentEnd(k) {
		a.growLocked()
		k++
	}
	off := a.mu.pos
	a.mu.pos += n
	return unsafe.Pointer(&a.mu.segs[k][off-segmentStart(k)]), off
}

// growLocked adds a segment.
func (a *arena) growLocked() {
	k := len(a.mu.segs)
	start, size := segmentStart(k), segmentEnd(k)-segmentStart(k)
	var seg []byte
	err := errClosed
	if a.mu.file != nil {
		if err = preallocate(a.mu.file, start, size); err == nil {
			seg, err = a.maps.Map(a.mu.file, int64(start), int(size))
		}
	}
	if err != nil {
		seg = make([]byte, size)
		a.failLocked(err)
	}
	a.mu.segs = append(a.mu.segs, seg)
	a.mu.pos = start
}

// failLocked notes that from now on the file isn't whole.
func (a *arena) failLocked(err error) {
	if a.mu.failed {
		return
	}
	a.mu.failed = true
	a.onFail(err)
}

// at returns the n bytes at an offset, nil if there are none.
func (a *arena) at(off, n uint64) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.atLocked(off, n)
}

func (a *arena) atLocked(off, n uint64) []byte {
	for k, seg := range a.mu.segs {
		if off < segmentEnd(k) {
			if off+n < off || off+n > segmentEnd(k) {
				return nil
			}
			off -= segmentStart(k)
			return seg[off : off+n : off+n]
		}
	}
	return nil
}

// preallocate makes a part of a file that can be written without needing space: storing to a hole of a mapped file would
// kill the process when the disk is full. What is there already stays.
func preallocate(f *os.File, start, size uint64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, int64(start), int64(size))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return rewrite(f, start, size)
		}
		return fmt.Errorf("fallocate: %w", err)
	}
}

// rewrite is preallocate for filesystems without fallocate.
func rewrite(f *os.File, start, size uint64) error {
	p := make([]byte, size)
	if _, err := f.ReadAt(p, int64(start)); err != nil && err != io.EOF {
		return err
	}
	_, err := f.WriteAt(p, int64(start))
	return err
}

// nocow asks a filesystem that writes changed blocks to new places not to do so with this empty file, for the same
// reason as preallocate. Others refuse, which is fine.
func nocow(f *os.File) {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	var fs unix.Statfs_t
	if err == nil && unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|flagNocow))
	}
}
