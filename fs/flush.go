package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/hold"
)

// flushThreads is how many files are flushed at once: each costs three round trips through the kernel to this process.
const flushThreads = 4

// Flusher makes the kernel hand over the pages that it holds back. syncfs(2) doesn't wait on a FUSE mount, fsync of a file does. It
// works through the mount itself, on threads of its own, by which the server recognises it. Those share no descriptors with
// the rest of the process (hold.WithOwnFiles says why), so what needs any is done before and after. Safe for concurrent use.
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

// target is a file to be flushed, with all that opening it takes.
type target struct {
	ino  uint64
	gen  uint32
	path string // empty: it has no name
}

func (f *Flusher) target(ino uint64) (target, error) {
	a, err := f.s.vol.Getattr(ino)
	if err != nil {
		return target{}, err
	}
	t := target{ino: ino, gen: uint32(a.Gen)}
	if path, err := f.s.vol.Path(ino); err == nil {
		t.path = path
	}
	return t, nil
}

// Flush returns when everything that was written to the mount before the call has been handed over to the volume. A file that can't be
// flushed fails it, since its writer's data might be missing; one that is gone meanwhile doesn't. When ctx ends first, Flush
// returns its error, and what is under way goes on behind.
func (f *Flusher) Flush(ctx context.Context) error {
	if !f.s.writeback {
		return nil
	}
	work, err := f.targets(f.s.vol.Writable())
	if err != nil || len(work) == 0 {
		return err
	}
	queue := make(chan target, len(work))
	for _, t := range work {
		queue <- t
	}
	close(queue)
	done := make(chan error, flushThreads)
	threads := min(flushThreads, len(work))
	for range threads {
		go func() { done <- f.drain(ctx, queue) }()
	}
	var failed error
	defer f.s.applyTimes()
	for range threads {
		select {
		case err := <-done:
			failed = errors.Join(failed, err)
		case <-ctx.Done():
			return fmt.Errorf("flush the files of %s: %w", f.mount, ctx.Err())
		}
	}
	return failed
}

func (f *Flusher) targets(inos []uint64) ([]target, error) {
	var out []target
	for _, ino := range inos {
		t, err := f.target(ino)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE):
		case err != nil:
			return nil, fmt.Errorf("look at inode %d of %s to flush it: %w", ino, f.mount, err)
		default:
			out = append(out, t)
		}
	}
	return out, nil
}

// drain flushes what is in the queue.
func (f *Flusher) drain(ctx context.Context, queue <-chan target) error {
	var closed []uint64 // those that could not be opened
	err := f.thread(func(root int) error {
		for t := range queue {
			if ctx.Err() != nil {
				return nil // Flush tells it
			}
			opened, err := f.flush(root, t, unix.Fsync)
			if err != nil {
				return err
			}
			if !opened {
				closed = append(closed, t.ino)
			}
		}
		return nil
	})
	for _, ino := range closed {
		err = errors.Join(err, f.s.invalidatePages(ino))
	}
	return err
}

// thread runs fn with the mount's root, on a thread that the server takes for the flusher's. The root isn't kept: an open descriptor
// would keep the mount busy.
func (f *Flusher) thread(fn func(root int) error) error {
	return hold.WithOwnFiles(func() error {
		tid := uint32(unix.Gettid())
		f.s.own.Store(tid, true)
		defer f.s.own.Delete(tid)
		root, err := unix.Open(f.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s to flush it: %w", f.mount, err)
		}
		defer unix.Close(root)
		return fn(root)
	})
}

// flush opens a file through the mount and calls sync on it; false if it may not be opened, so that only an invalidation makes the
// kernel hand over its pages.
func (f *Flusher) flush(root int, t target, sync func(fd int) error) (opened bool, err error) {
	fd, err := f.open(root, t, unix.O_RDONLY|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE):
		return true, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("open inode %d of %s to flush it: %w", t.ino, f.mount, err)
	}
	defer unix.Close(fd)
	if err := sync(fd); err != nil {
		return true, fmt.Errorf("flush inode %d of %s: %w", t.ino, f.mount, err)
	}
	return true, nil
}

// open opens a file of the mount by its inode number, through the kernel's own table of inodes: it works for files that are renamed
// or have lost their names. It takes CAP_DAC_READ_SEARCH; without, the path must do.
func (f *Flusher) open(root int, t target, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	fd, err := unix.OpenByHandleAt(root, nodeHandle(f.s.node(t.ino), t.gen), flags)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fd, err
	}
	if t.path == "" {
		return -1, unix.EPERM // no name: only a handle could have reached it
	}
	fd, err = unix.Openat(root, "."+t.path, flags|unix.O_NOFOLLOW, 0)
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

// writeBack brings one inode's dirty pages to the backing, while the kernel may hold the inode's lock: fsync would wait for
// that for ever, sync_file_range and invalidation don't.
func (s *Server) writeBack(ino uint64) {
	if err := s.writeBackRange(ino); err != nil {
		if !errors.Is(err, errNotOpened) {
			s.log.Warn("dirty pages couldn't be written back by way of the mount; they are invalidated", "ino", ino, "err", err)
		}
		s.invalidatePages(ino)
	}
}

var errNotOpened = errors.New("the file may not be opened")

func (s *Server) writeBackRange(ino uint64) error {
	return s.onMount(ino, func(f *Flusher, root int, t target) error {
		opened, err := f.flush(root, t, func(fd int) error {
			return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		})
		if err == nil && !opened {
			return errNotOpened
		}
		return err
	})
}

// onMount calls fn on a thread that may reach an inode by way of the mount.
func (s *Server) onMount(ino uint64, fn func(f *Flusher, root int, t target) error) error {
	f := s.flusher.Load()
	if f == nil {
		return errNotOpened
	}
	t, err := f.target(ino)
	if err != nil {
		return err
	}
	return f.thread(func(root int) error { return fn(f, root, t) })
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
