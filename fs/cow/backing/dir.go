package backing

import (
	"bytes"
	"encoding/binary"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// DirStream is an open directory. Positions are the backing filesystem's own, so they stay good in another stream of the same directory.
type DirStream struct {
	mu sync.Mutex
	// Guarded by mu.
	fd   int
	pos  int64  // position of the first entry of rest
	rest []byte // read, but not given out
	buf  []byte
}

// OpenDir opens a directory for listing; it works on a removed one too.
func (t *Tree) OpenDir(dir uint64) (*DirStream, error) {
	h, err := t.acquire(dir, kindPath)
	if err != nil {
		return nil, err
	}
	defer h.release()
	fd, err := openFD(h.fd, unix.S_IFDIR, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &DirStream{fd: fd}, nil
}

// Close closes the stream.
func (s *DirStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return syscall.EBADF
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// ReadAt gives out the entries from position off on, "." and ".." among them, until fn returns false: that entry counts as not
// given out. Off 0 is the start and shows the directory as it is now; another off is an Off of an earlier entry.
func (s *DirStream) ReadAt(off int64, fn func(Dirent) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off == 0 || off != s.pos {
		if _, err := unix.Seek(s.fd, off, 0); err != nil {
			return err
		}
		s.pos, s.rest = off, nil
	}
	for {
		if len(s.rest) == 0 {
			if err := s.fillLocked(); err != nil || len(s.rest) == 0 {
				return err
			}
		}
		e, size := parseDirent(s.rest)
		if size == 0 {
			return syscall.EIO
		}
		if !fn(e) {
			return nil
		}
		s.rest, s.pos = s.rest[size:], e.Off
	}
}

func (s *DirStream) fillLocked() error {
	if s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	return eintr(func() error {
		n, err := unix.Getdents(s.fd, s.buf)
		if err == syscall.ENOENT { // a removed directory has no entries
			n, err = 0, nil
		}
		s.rest = s.buf[:max(n, 0)]
		return err
	})
}

// parseDirent decodes the first linux_dirent64 of b. size 0: it is damaged.
func parseDirent(b []byte) (e Dirent, size int) {
	if len(b) < 20 {
		return e, 0
	}
	size = int(binary.NativeEndian.Uint16(b[16:]))
	if size < 20 || size > len(b) {
		return e, 0
	}
	name := b[19:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return Dirent{
		Name: string(name), Ino: binary.NativeEndian.Uint64(b), Type: uint32(b[18]) << 12,
		Off: int64(binary.NativeEndian.Uint64(b[8:])),
	}, size
}

// ReadDir lists a whole directory, without "." and "..".
func (t *Tree) ReadDir(dir uint64) ([]Dirent, error) {
	s, err := t.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var all []Dirent
	err = s.ReadAt(0, func(e Dirent) bool {
		if e.Name != "." && e.Name != ".." {
			all = append(all, e)
		}
		return true
	})
	return all, err
}
