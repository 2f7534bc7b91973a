package backing

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fiemap is struct fiemap of linux/fiemap.h, without room for extents: the kernel only counts them.
type fiemap struct {
	start, length uint64
	flags, mapped uint32
	room, unused  uint32
}

const fsIocFiemap = 0xc020660b

// extents counts a file's extents at or after off, preallocated ones too.
func extents(fd int, off int64) (uint32, error) {
	m := fiemap{start: uint64(off), length: math.MaxUint64 - uint64(off)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap, uintptr(unsafe.Pointer(&m))); errno != 0 {
		return 0, errno
	}
	return m.mapped, nil
}
