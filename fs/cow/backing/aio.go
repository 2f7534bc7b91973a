package backing

import (
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSyncs is how many fdatasyncs that StartSync began may be under way, or not waited for.
const maxSyncs = 16

// errSyncs: StartSync can't begin another fdatasync.
var errSyncs = errors.New("no more fdatasyncs can be begun ahead")

// StartSync begins an fdatasync of a file and returns at once. wait returns when it has ended, and its error; it must be
// called at least once, by anybody. The kernel's own threads do the work: a goroutine would begin it only when the scheduler has a
// processor for it, and those are often held by threads that wait for requests, until it finds out.
func (t *Tree) StartSync(ino uint64) (wait func() error, err error) {
	h, err := t.reading(ino)
	if err != nil {
		return nil, err
	}
	defer h.release() // the kernel has a reference of its own
	c, err := t.syncs.take()
	if err != nil {
		return nil, err
	}
	if err := c.fdatasync(h.fd); err != nil {
		t.syncs.give(c)
		return nil, err
	}
	return sync.OnceValue(func() error {
		defer t.syncs.give(c)
		return c.wait()
	}), nil
}

// aioPool keeps contexts for their next use: to end one takes the kernel milliseconds. Each serves one fdatasync at a time.
type aioPool struct {
	mu struct {
		sync.Mutex
		idle   []aioContext
		made   int
		closed bool // or the kernel has given none
	}
}

func (p *aioPool) take() (aioContext, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.mu.idle); n > 0 {
		c := p.mu.idle[n-1]
		p.mu.idle = p.mu.idle[:n-1]
		return c, nil
	}
	if p.mu.closed || p.mu.made == maxSyncs {
		return 0, errSyncs
	}
	c, err := newAIO()
	if err != nil {
		p.mu.closed = true
		return 0, err
	}
	p.mu.made++
	return c, nil
}

func (p *aioPool) give(c aioContext) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		c.destroy()
		return
	}
	p.mu.idle = append(p.mu.idle, c)
}

func (p *aioPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	for _, c := range p.mu.idle {
		c.destroy()
	}
	p.mu.idle = nil
}

// aioContext is the kernel's aio_context_t.
type aioContext uintptr

// iocb and ioEvent are those of linux/aio_abi.h. What isn't named must be 0 here.
type iocb struct {
	_      [16]byte
	opcode uint16
	_      int16
	fd     uint32
	_      [40]byte
}

type ioEvent struct {
	_   [16]byte
	res int64
	_   int64
}

const iocbFdsync = 3

func newAIO() (c aioContext, err error) {
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&c)), 0); e != 0 {
		return 0, e
	}
	return c, nil
}

func (c aioContext) destroy() { unix.Syscall(unix.SYS_IO_DESTROY, uintptr(c), 0, 0) }

func (c aioContext) fdatasync(fd int) error {
	cb := &iocb{opcode: iocbFdsync, fd: uint32(fd)}
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, uintptr(c), 1, uintptr(unsafe.Pointer(&cb))); e != 0 {
		return e
	}
	return nil
}

// wait returns the result of what was begun.
func (c aioContext) wait() error {
	var ev ioEvent
	err := eintr(func() error {
		if _, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(c), 1, 1, uintptr(unsafe.Pointer(&ev)), 0, 0); e != 0 {
			return e
		}
		return nil
	})
	if err == nil && ev.res < 0 {
		return syscall.Errno(-ev.res)
	}
	return err
}
