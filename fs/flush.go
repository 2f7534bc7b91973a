package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// flushThreads is how many files are flushed at once: each costs three round trips through the kernel to this process.
const flushThreads = 4

// Flusher makes the kernel hand over the pages that it holds back. syncfs(2) doesn't wait on a FUSE mount, fsync of a file does. It
// works through the mount itself, on threads of its own, by which the server recognises it. Safe for concurrent use.
type Flusher struct {
	s     *Server
	mount string
}

// NewFlusher makes the flusher of a server that is mounted at an absolute path.
func (s *Server) NewFlusher(mount string) *Flusher {
	f := &Flusher{s: s, mount: mount}
	s.flusher.Store(f)
	return f
}

// Flush returns when everything that was written to the mount before the call has been handed over to the volume. A file that can't be
// flushed fails it, since its writer's data might be missing; one that is gone meanwhile doesn't. When ctx ends first, Flush
// returns its error, and what is under way goes on behind.
func (f *Flusher) Flush(ctx context.Context) error {
	if !f.s.writeback {
		return nil
	}
	inos := f.s.vol.Writable()
	if len(inos) == 0 {
		return nil
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	work := make(chan uint64, len(inos))
	for _, ino := range inos {
		work <- ino
	}
	close(work)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range min(flushThreads, len(inos)) {
		wg.Go(func() {
			err := f.thread(func() error { return f.drain(ctx, root, work) })
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		root.Close()
		close(done)
	}()
	select {
	case <-done:
		return failed
	case <-ctx.Done():
		return fmt.Errorf("flush the files of %s: %w", f.mount, ctx.Err())
	}
}

// thread runs fn on a thread that the server takes for the flusher's.
func (f *Flusher) thread(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := uint32(unix.Gettid())
	f.s.own.Store(tid, true)
	defer f.s.own.Delete(tid)
	return fn()
}

func (f *Flusher) drain(ctx context.Context, root *os.File, work <-chan uint64) error {
	for ino := range work {
		if ctx.Err() != nil {
			return nil // Flush tells it
		}
		if err := f.flush(root, ino, unix.Fsync); err != nil {
			return err
		}
	}
	return nil
}

// flush opens an inode through the mount and calls sync on it. Where it can't be opened, it is invalidated, which hands over its pages too.
func (f *Flusher) flush(root *os.File, ino uint64, sync func(fd int) error) error {
	fd, err := f.open(root, ino)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE):
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return f.s.invalidatePages(ino)
	case err != nil:
		return fmt.Errorf("open inode %d of %s to flush it: %w", ino, f.mount, err)
	}
	defer unix.Close(fd)
	if err := sync(fd); err != nil {
		return fmt.Errorf("flush inode %d of %s: %w", ino, f.mount, err)
	}
	return nil
}

// open opens a file of the mount by its inode number, through the kernel's own table of inodes: it works for files that are renamed
// or have lost their names. It takes CAP_DAC_READ_SEARCH; without, the path must do.
func (f *Flusher) open(root *os.File, ino uint64) (int, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	a, err := f.s.vol.Getattr(ino)
	if err != nil {
		return -1, err
	}
	fd, err := unix.OpenByHandleAt(int(root.Fd()), nodeHandle(f.s.node(ino), uint32(a.Gen)), flags)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fd, err
	}
	path, err := f.s.vol.Path(ino)
	if err != nil {
		return -1, unix.EPERM // no name: only a handle could have reached it
	}
	fd, err = unix.Openat(int(root.Fd()), "."+path, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) { // renamed in between
		return -1, unix.EPERM
	}
	return fd, err
}

// nodeHandle is the file handle that the kernel's FUSE makes: FILEID_INO64_GEN; node id, high half first, and generation.
func nodeHandle(node uint64, gen uint32) unix.FileHandle {
	const fileidIno64Gen = 0x81
	b := binary.NativeEndian.AppendUint32(nil, uint32(node>>32))
	b = binary.NativeEndian.AppendUint32(b, uint32(node))
	b = binary.NativeEndian.AppendUint32(b, gen)
	return unix.NewFileHandle(fileidIno64Gen, b)
}

// root opens the mount's root. It isn't kept: an open descriptor would keep the mount busy.
func (f *Flusher) root() (*os.File, error) {
	dir, err := os.OpenFile(f.mount, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mount to flush it: %w", err)
	}
	return dir, nil
}

// writeBack brings one inode's dirty pages to the backing, while the kernel may hold the inode's lock: fsync would wait for
// that for ever, sync_file_range and invalidation don't.
func (s *Server) writeBack(ino uint64) {
	f := s.flusher.Load()
	if f == nil {
		s.invalidatePages(ino)
		return
	}
	err := f.thread(func() error {
		root, err := f.root()
		if err != nil {
			return err
		}
		defer root.Close()
		return f.flush(root, ino, func(fd int) error {
			return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		})
	})
	if err != nil {
		s.log.Warn("dirty pages couldn't be written back by way of the mount; they are invalidated", "ino", ino, "err", err)
		s.invalidatePages(ino)
	}
}

// invalidatePages makes the kernel write an inode's dirty pages back and drop them all.
func (s *Server) invalidatePages(ino uint64) error {
	srv := s.notify.Load()
	if srv == nil {
		return unix.ENOTCONN
	}
	if st := srv.InodeNotify(s.node(ino), 0, 0); !st.Ok() && st != fuse.ENOENT {
		return fmt.Errorf("invalidate inode %d: %w", ino, unix.Errno(st))
	}
	return nil
}
