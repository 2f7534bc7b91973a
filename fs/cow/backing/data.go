package backing

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenFile counts an open, and makes sure that one is possible. Opens are counted in the node table: WritableOpen tells after a
// restart which inodes may have dirty pages in the kernel.
func (t *Tree) OpenFile(ino uint64, write bool) error {
	kind := kindRead
	if write {
		kind = kindWrite
	}
	h, err := t.acquire(ino, kind)
	if err == syscall.EACCES && kind == kindRead {
		h, err = t.acquire(ino, kindWrite)
	}
	if err != nil {
		return err
	}
	defer h.release()
	n := t.nodes.getLocked(ino, nil)
	if n == nil {
		return syscall.ESTALE
	}
	t.table.store(func() { *n.opensLocked(write)++ })
	nameless := len(n.links) == 0 && n != t.root
	n.mu.Unlock()
	if nameless {
		t.stashNode(n, h.fd)
	}
	return nil
}

// opensLocked counts the opens for writing, or for reading.
func (n *node) opensLocked(write bool) *uint32 {
	if write {
		return &n.rec.writers
	}
	return &n.rec.readers
}

// CloseFile takes one open back.
func (t *Tree) CloseFile(ino uint64, write bool) {
	n := t.nodes.getLocked(ino, nil)
	if n == nil {
		return
	}
	t.table.store(func() {
		if c := n.opensLocked(write); *c > 0 {
			*c--
		}
	})
	idle, named := n.idleLocked(), len(n.links) > 0
	n.mu.Unlock()
	if idle && named {
		t.pushIdle(ino)
	} else if idle {
		t.drop(ino, false)
	}
}

// reading is acquire for reading: a file that may only be written is read through its write descriptor.
func (t *Tree) reading(ino uint64) (*handle, error) {
	h, err := t.acquire(ino, kindRead)
	if err == syscall.EACCES {
		return t.acquire(ino, kindWrite)
	}
	return h, err
}

// ReadAt fills p from off on. It is short, and 0 without an error, at the end of the file only.
func (t *Tree) ReadAt(ino uint64, p []byte, off int64) (int, error) {
	h, err := t.reading(ino)
	if err != nil {
		return 0, err
	}
	defer h.release()
	// The kernel refuses what would end behind the last offset, although a file may end there.
	p = p[:min(int64(len(p)), max(math.MaxInt64-off, 0))]
	return full(p, func(done int, p []byte) (int, error) { return unix.Pread(h.fd, p, off+int64(done)) })
}

// WriteAt writes all of p, unless it tells an error; then the number of bytes written counts.
func (t *Tree) WriteAt(ino uint64, p []byte, off int64) (int, error) {
	h, err := t.acquire(ino, kindWrite)
	if err != nil {
		return 0, err
	}
	defer h.release()
	return full(p, func(done int, p []byte) (int, error) { return unix.Pwrite(h.fd, p, off+int64(done)) })
}

// full repeats io until p is done, nothing comes any more, or an error does. An error after some bytes is left for the next call.
func full(p []byte, io func(done int, p []byte) (int, error)) (int, error) {
	done := 0
	for done < len(p) {
		n, err := io(done, p[done:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return 0, err
		}
		if err != nil || n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// Truncate makes the file size bytes long. The times change even if the size doesn't.
func (t *Tree) Truncate(ino uint64, size int64) error {
	h, err := t.acquire(ino, kindWrite)
	if err != nil {
		return err
	}
	defer h.release()
	return eintr(func() error { return unix.Ftruncate(h.fd, size) })
}

// Fallocate is fallocate(2).
func (t *Tree) Fallocate(ino uint64, mode uint32, off, n int64) error {
	h, err := t.acquire(ino, kindWrite)
	if err != nil {
		return err
	}
	defer h.release()
	return eintr(func() error { return unix.Fallocate(h.fd, mode, off, n) })
}

// CopyRange copies up to n bytes inside the kernel, sharing blocks where the filesystem can. 0: soff is at the end of src.
func (t *Tree) CopyRange(src uint64, soff int64, dst uint64, doff int64, n int) (int, error) {
	s, err := t.reading(src)
	if err != nil {
		return 0, err
	}
	defer s.release()
	d, err := t.acquire(dst, kindWrite)
	if err != nil {
		return 0, err
	}
	defer d.release()
	var done int
	err = eintr(func() (err error) {
		done, err = unix.CopyFileRange(s.fd, &soff, d.fd, &doff, min(n, math.MaxInt32&^4095), 0)
		return err
	})
	return done, err
}

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
func (t *Tree) Seek(ino uint64, off int64, whence int) (int64, error) {
	h, err := t.reading(ino)
	if err != nil {
		return 0, err
	}
	defer h.release()
	return unix.Seek(h.fd, off, whence)
}

// Allocated tells whether blocks that begin at or after off are allocated, beyond the end of the file too, where Seek doesn't look; true
// where the filesystem doesn't tell.
func (t *Tree) Allocated(ino uint64, off int64) (bool, error) {
	h, err := t.reading(ino)
	if err != nil {
		return false, err
	}
	defer h.release()
	n, err := extents(h.fd, (off+4095)&^4095)
	if err == syscall.EOPNOTSUPP || err == syscall.ENOTTY {
		return true, nil
	}
	return n > 0, err
}

// Fsync makes the file's data, and its attributes unless datasync is set, durable.
func (t *Tree) Fsync(ino uint64, datasync bool) error {
	h, err := t.reading(ino)
	if err != nil {
		return err
	}
	defer h.release()
	return syncFD(h.fd, datasync)
}

// FsyncDir makes a directory's entries durable.
func (t *Tree) FsyncDir(ino uint64, datasync bool) error { return t.Fsync(ino, datasync) }

// Stamp gives a file another change time, durably: the access time, which nothing relies upon, is set to what it is.
func (t *Tree) Stamp(ino uint64) error {
	h, err := t.reading(ino)
	if err != nil {
		return err
	}
	defer h.release()
	st, err := t.statx(h.fd, "")
	if err != nil {
		return err
	}
	ts := []unix.Timespec{{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)}, {Nsec: unix.UTIME_OMIT}}
	if err := eintr(func() error { return unix.UtimesNanoAt(h.fd, "", ts, unix.AT_EMPTY_PATH) }); err != nil {
		return err
	}
	return syncFD(h.fd, false)
}

// SyncFS makes everything durable that was written to the backing's filesystem before the call.
func (t *Tree) SyncFS() error {
	h, err := t.reading(t.root.ino)
	if err != nil {
		return err
	}
	defer h.release()
	return eintr(func() error { return unix.Syncfs(h.fd) })
}

func syncFD(fd int, datasync bool) error {
	if datasync {
		return eintr(func() error { return unix.Fdatasync(fd) })
	}
	return eintr(func() error { return unix.Fsync(fd) })
}

// Hold returns a descriptor of its own for reading, which keeps the inode's content even if it loses its last name. It doesn't
// change the access time where the server may prevent that. release closes it.
func (t *Tree) Hold(ino uint64) (f *os.File, release func(), err error) {
	h, err := t.reading(ino)
	if err != nil {
		return nil, nil, err
	}
	defer h.release()
	fd, err := unix.Open(procPath(h.fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err == syscall.EPERM {
		fd, err = unix.Open(procPath(h.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil { // not ours to open again: share the open one
		fd, err = unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, nil, err
	}
	f = os.NewFile(uintptr(fd), "held inode")
	return f, func() { f.Close() }, nil
}
