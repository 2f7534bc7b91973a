package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
)

// fileState is what is known of a file that is open for writing in the write-back mode: what the kernel was last told, and what is ahead of it.
type fileState struct {
	blocks atomic.Int64 // st_blocks; -1: unknown
	long   atomic.Bool  // it may keep the attributes for long

	ahead    syncAhead
	applying sync.Mutex // held while a held time is set
}

func (s *Server) state(ino uint64) *fileState {
	if st := s.known(ino); st != nil {
		return st
	}
	st := new(fileState)
	st.blocks.Store(-1)
	st.long.Store(true)
	was, _ := s.files.LoadOrStore(ino, st)
	return was.(*fileState)
}

// openedForWriting makes the state of a file. What the backing has is what the kernel was told, as long as nothing was written.
func (s *Server) openedForWriting(ino uint64) {
	if s.known(ino) != nil {
		return
	}
	st := s.state(ino)
	if a, err := s.vol.Getattr(ino); err == nil {
		st.ahead.finds(a.Mtime)
	}
}

// known returns the state of a file if it has one.
func (s *Server) known(ino uint64) *fileState {
	if st, ok := s.files.Load(ino); ok {
		return st.(*fileState)
	}
	return nil
}

// goodFor says for how long the kernel may believe attributes of a.
func (s *Server) goodFor(a *cow.Attr) time.Duration {
	if s.known(a.Ino) != nil {
		return writerTime
	}
	return longTime
}

// told is goodFor that notes what is told.
func (s *Server) told(a *cow.Attr) time.Duration {
	if !s.writeback || a.Mode&unix.S_IFMT != unix.S_IFREG {
		return longTime
	}
	st := s.known(a.Ino)
	if st == nil {
		return longTime
	}
	st.blocks.Store(a.Blocks)
	st.long.Store(false)
	return writerTime
}

// pagesCame is called for every write of cached pages: from now on attributes that were told for long may be wrong, and an fdatasync may be near.
func (s *Server) pagesCame(ino uint64) {
	st := s.state(ino)
	st.ahead.written(func() (func() error, error) { return s.vol.StartSync(ino) })
	if st.long.Load() && st.long.Swap(false) {
		s.invalidateAttr(ino)
	}
}

// synced ends the kernel's attributes if pages that came before an fsync have changed st_blocks.
func (s *Server) synced(ino uint64) {
	st := s.known(ino)
	if st == nil {
		return
	}
	a, err := s.vol.Getattr(ino)
	if err == nil && st.blocks.Swap(a.Blocks) != a.Blocks {
		s.invalidateAttr(ino)
	}
}

// closed drops the state when the last writer is gone, unless an error must be told by an FSYNC that may come.
func (s *Server) closed(ino uint64) {
	st := s.known(ino)
	if st == nil || s.vol.Writers(ino) > 0 {
		return
	}
	drop := st.ahead.close()
	st.ahead.clean()
	s.applyTime(ino, st)
	if drop {
		s.files.CompareAndDelete(ino, st)
	}
}

// invalidateAttr ends what the kernel knows of an inode's attributes, but not its pages. It takes no lock in the kernel that
// a request could hold, so it may be called while serving one.
func (s *Server) invalidateAttr(ino uint64) {
	if srv := s.notify.Load(); srv != nil {
		srv.InodeNotify(s.node(ino), -1, 0)
	}
}
