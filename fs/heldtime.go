package fs

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
)

// holdMtime answers a SETATTR whose mtime syncAhead holds; the kernel gets what it would get if the time were set.
func (s *Server) holdMtime(ino uint64, set *cow.SetAttr, out *fuse.AttrOut) bool {
	st := s.known(ino)
	if st == nil || set.Valid != backing.SetMtime || !st.ahead.hold(set.Mtime) {
		return false
	}
	s.applyTimesSoon()
	a, err := s.vol.Getattr(ino)
	if err != nil {
		return false
	}
	a.Mtime = set.Mtime
	s.answer(out, &a)
	return true
}

func (s *Server) applyTimesSoon() {
	if s.applySoon.CompareAndSwap(false, true) {
		time.AfterFunc(holdTime, s.applyTimes)
	}
}

// savedMtime notes what a SETATTR has made of the mtime.
func (s *Server) savedMtime(ino uint64, set *cow.SetAttr) {
	st := s.known(ino)
	switch {
	case st == nil:
	case set.Valid&backing.SetMtimeNow != 0:
		st.ahead.saves(nil)
	case set.Valid&backing.SetMtime != 0:
		st.ahead.saves(&set.Mtime)
	}
}

// applyTimes sets every held time. After it returns, none is held that was held before.
func (s *Server) applyTimes() {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	s.applySoon.Store(false)
	s.files.Range(func(ino, st any) bool {
		s.applyTime(ino.(uint64), st.(*fileState))
		return true
	})
}

// applyTime sets a file's held time. It returns when another call has set it, too.
func (s *Server) applyTime(ino uint64, st *fileState) {
	st.applying.Lock()
	defer st.applying.Unlock()
	t := st.ahead.release()
	if t == nil {
		return
	}
	_, err := s.vol.Setattr(cow.Caller{}, ino, cow.SetAttr{Valid: backing.SetMtime, Mtime: *t})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
		s.log.Warn("the backing keeps its own mtime, which differs by moments from the kernel's", "ino", ino, "err", err)
	}
}

// interrupt is called before and after a change of data or size that is no write of cached pages. The change finds the held time set, and no
// fdatasync that began before its end counts for it.
func (s *Server) interrupt(ino uint64) {
	if st := s.known(ino); st != nil {
		st.ahead.interrupt()
		s.applyTime(ino, st)
	}
}
