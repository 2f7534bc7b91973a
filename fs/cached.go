package fs

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
)

// fileState is what the kernel was last told about a file that is open for writing in the write-back mode.
type fileState struct {
	blocks atomic.Int64 // st_blocks; -1: unknown
	long   atomic.Bool  // it may keep the attributes for long
}

func (s *Server) state(ino uint64) *fileState {
	if st, ok := s.files.Load(ino); ok {
		return st.(*fileState)
	}
	st := new(fileState)
	st.blocks.Store(-1)
	st.long.Store(true)
	was, _ := s.files.LoadOrStore(ino, st)
	return was.(*fileState)
}

// goodFor says for how long the kernel may believe attributes of a.
func (s *Server) goodFor(a *cow.Attr) time.Duration {
	if _, ok := s.files.Load(a.Ino); ok && s.writeback {
		return writerTime
	}
	return longTime
}

// told is goodFor that notes what is told.
func (s *Server) told(a *cow.Attr) time.Duration {
	if !s.writeback || a.Mode&unix.S_IFMT != unix.S_IFREG {
		return longTime
	}
	v, ok := s.files.Load(a.Ino)
	if !ok {
		return longTime
	}
	st := v.(*fileState)
	st.blocks.Store(a.Blocks)
	st.long.Store(false)
	return writerTime
}

// pagesCame is called for every write of cached pages: from now on attributes that were told for long may be wrong.
func (s *Server) pagesCame(ino uint64) {
	if st := s.state(ino); st.long.Load() && st.long.Swap(false) {
		s.invalidateAttr(ino)
	}
}

// synced ends the kernel's attributes if pages that came before an fsync have changed st_blocks.
func (s *Server) synced(ino uint64) {
	v, ok := s.files.Load(ino)
	if !ok || !s.writeback {
		return
	}
	st := v.(*fileState)
	a, err := s.vol.Getattr(ino)
	if err == nil && st.blocks.Swap(a.Blocks) != a.Blocks {
		s.invalidateAttr(ino)
	}
}

// closed drops the state when the last writer is gone.
func (s *Server) closed(ino uint64) {
	if s.vol.Writers(ino) == 0 {
		s.files.Delete(ino)
	}
}

// invalidateAttr ends what the kernel knows of an inode's attributes, but not its pages. It takes no lock in the kernel that
// a request could hold, so it may be called while serving one.
func (s *Server) invalidateAttr(ino uint64) {
	if srv := s.notify.Load(); srv != nil {
		srv.InodeNotify(s.node(ino), -1, 0)
	}
}
