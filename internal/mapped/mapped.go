// Package mapped is memory that is also in a file, for as long as the file's disk works.
//
// A store to a shared mapping survives the process, and costs nothing. But where the disk fails, the kernel answers it with a memory fault, which
// would kill the process: xfs and btrfs do that when they have stopped after an error of their device, for every page that was clean. So all
// stores go through Do. After the first fault the segments are ordinary memory, at the same addresses, and the store is made there.
//
// Reading isn't protected. It fails only where a page was written back, thrown out of memory, and can't be read again, while nothing was stored
// since the disk failed. (Locking the pages into memory would wait for a disk that fails, without end.)
package mapped

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is some mapped segments of files that share a fate.
type Memory struct {
	left atomic.Bool

	mu struct {
		sync.Mutex
		segs [][]byte
	}
}

var errLeft = errors.New("the disk failed below a mapped file")

// Map maps a part of a file, which must have been allocated: storing to a hole on a full disk is a fault. After the segments have left their files
// there is no further one.
func (m *Memory) Map(file *os.File, start int64, size int) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Left() {
		return nil, errLeft
	}
	p, err := unix.MmapPtr(int(file.Fd()), start, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	seg := unsafe.Slice((*byte)(p), size)
	m.mu.segs = append(m.mu.segs, seg)
	return seg, nil
}

// Left tells whether the segments have left their files. Then a store that was made while they did may be lost.
func (m *Memory) Left() bool { return m.left.Load() }

// Do runs fn, which stores to segments. If a store fails, the segments leave their files and fn is run once more, from the beginning; so
// it must hold no lock that the first run would leave locked. left: this has just happened.
func (m *Memory) Do(fn func()) (left bool) {
	if m.try(fn) {
		return false
	}
	m.leave()
	fn()
	return true
}

// try runs fn and tells whether it came to its end.
func (m *Memory) try(fn func()) (done bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if fault, ok := p.(interface{ Addr() uintptr }); !ok || !m.holds(fault.Addr()) {
			panic(p)
		}
	}()
	fn()
	return true
}

func (m *Memory) holds(addr uintptr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seg := range m.mu.segs {
		if base := uintptr(unsafe.Pointer(&seg[0])); addr >= base && addr < base+uintptr(len(seg)) {
			return true
		}
	}
	return false
}

// leave replaces the segments by copies of them.
func (m *Memory) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left.Swap(true) {
		return // somebody else had the same trouble
	}
	for _, seg := range m.mu.segs {
		if err := replace(seg); err != nil {
			// Without memory there is nothing to go on with: the second run of the store fails as the first did.
			fmt.Fprintln(os.Stderr, "leaving a file whose disk fails:", err)
		}
	}
}

// replace puts a copy of a segment in its place, in one step.
func replace(seg []byte) error {
	size := uintptr(len(seg))
	p, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	fresh := unsafe.Slice((*byte)(p), size)
	for page := os.Getpagesize(); len(fresh) > 0; {
		n := min(page, len(fresh))
		copyPage(fresh[:n], seg[len(seg)-len(fresh):])
		fresh = fresh[n:]
	}
	if _, err := unix.MremapPtr(p, size, unsafe.Pointer(&seg[0]), size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED); err != nil {
		return fmt.Errorf("mremap: %w", err)
	}
	return nil
}

// copyPage copies a page; one that can't be read stays zero.
func copyPage(dst, src []byte) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { _ = recover() }() // there is nothing but the copy that could fail
	copy(dst, src)
}

// Release gives the memory and the files' disk space back. The addresses stay valid and read as zero: a stale pointer finds nothing, instead of
// killing the process.
func (m *Memory) Release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seg := range m.mu.segs {
		_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&seg[0]), uintptr(len(seg)), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_NORESERVE)
		if err != nil {
			return fmt.Errorf("mmap: %w", err)
		}
	}
	return nil
}

// Unmap unmaps one segment, which nothing may point into any more.
func (m *Memory) Unmap(seg []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.mu.segs {
		if &m.mu.segs[k][0] == &seg[0] {
			m.mu.segs = append(m.mu.segs[:k:k], m.mu.segs[k+1:]...)
			unmap(seg)
			return
		}
	}
}

// UnmapAll unmaps all segments.
func (m *Memory) UnmapAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seg := range m.mu.segs {
		unmap(seg)
	}
	m.mu.segs = nil
}

// unmap can only fail for addresses that aren't mapped.
func unmap(seg []byte) { _ = unix.MunmapPtr(unsafe.Pointer(&seg[0]), uintptr(len(seg))) }
