package fs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
)

// Blocks preallocated beyond the end of a file (FALLOC_FL_KEEP_SIZE) are freed when it is truncated to its size or less, and stay when
// it grows. In the write-back mode the kernel's file may be longer than the backing's, whose last pages are still to come: then what
// cuts the kernel's file lets the backing's grow, and its filesystem keeps what it should free. RocksDB preallocates
// its files and truncates them before it closes them, so all that it preallocated too much would be lost.

// truncate sets attributes, the size among them.
func (s *Server) truncate(c cow.Caller, ino uint64, set cow.SetAttr) (cow.Attr, error) {
	lost := s.losesPreallocated(ino, set.Size)
	a, err := s.vol.Setattr(c, ino, set)
	if err == nil && lost {
		return s.vol.Setattr(c, ino, cow.SetAttr{Valid: backing.SetSize, Size: set.Size}) // its own size now: that frees them
	}
	return a, err
}

// losesPreallocated tells whether a truncation, which lets the backing's file grow, cuts the kernel's. If the kernel's can't be looked at, it is
// taken to grow: what was preallocated for it must not be lost.
func (s *Server) losesPreallocated(ino uint64, size int64) bool {
	if !s.writeback || s.vol.Writers(ino) == 0 {
		return false
	}
	a, err := s.vol.Getattr(ino)
	if err != nil || size <= a.Size {
		return false
	}
	if beyond, err := s.vol.Allocated(ino, size); err != nil || !beyond {
		return false
	}
	kernel, err := s.kernelSize(ino)
	if err != nil {
		s.log.Warn("blocks preallocated beyond the end of a file may stay allocated", "ino", ino, "err", err)
	}
	return err == nil && size <= kernel
}

// kernelSize asks the kernel for a file's size. The file isn't opened: to close it would write its pages back, and these wait for the
// truncation. Nothing here takes the inode's lock, which the truncation holds.
func (s *Server) kernelSize(ino uint64) (size int64, err error) {
	err = s.onMount(ino, func(f *Flusher, root int, t target) error {
		fd, err := f.open(root, t, unix.O_PATH)
		if err != nil {
			return fmt.Errorf("look at inode %d by way of the mount: %w", ino, err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		size = st.Size
		return err
	})
	return size, err
}
