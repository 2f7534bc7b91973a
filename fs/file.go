package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
)

func writes(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }

// opened counts an open, and takes back the reference of what was made for it if that fails.
func (s *Server) opened(ino uint64, flags uint32, out *fuse.OpenOut) fuse.Status {
	write := writes(flags)
	if err := s.vol.OpenFile(ino, write); err != nil {
		return s.status(err)
	}
	if write && s.writeback {
		s.openedForWriting(ino)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Create makes a regular file and opens it.
func (s *Server) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Create(c, in, name, out)
	}
	a, err := s.vol.Create(s.caller(&in.InHeader, in.Umask), s.ino(in.NodeId), name, in.Flags, in.Mode)
	if err != nil {
		return s.status(err)
	}
	return s.created(a.Ino, in, out, func() fuse.Status { return s.entry(&out.EntryOut, &a) })
}

// Tmpfile makes a regular file without a name and opens it.
func (s *Server) Tmpfile(c <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Tmpfile(c, in, out)
	}
	a, err := s.vol.Tmpfile(s.caller(&in.InHeader, in.Umask), s.ino(in.NodeId), in.Flags, in.Mode)
	if err != nil {
		return s.status(err)
	}
	return s.created(a.Ino, in, out, func() fuse.Status { return s.entry(&out.EntryOut, &a) })
}

func (s *Server) created(ino uint64, in *fuse.CreateIn, out *fuse.CreateOut, entry func() fuse.Status) fuse.Status {
	if st := s.opened(ino, in.Flags, &out.OpenOut); !st.Ok() {
		s.vol.Forget(ino, 1)
		return st
	}
	st := entry()
	if !st.Ok() {
		s.vol.Release(ino, writes(in.Flags))
	}
	return st
}

// Open counts an open. O_TRUNC comes as a SetAttr.
func (s *Server) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Open(c, in, out)
	}
	return s.opened(s.ino(in.NodeId), in.Flags, out)
}

// Release takes an open back.
func (s *Server) Release(c <-chan struct{}, in *fuse.ReleaseIn) {
	if b := s.snap(in.NodeId); b != nil {
		b.Release(c, in)
		return
	}
	ino, write := s.ino(in.NodeId), writes(in.Flags)
	s.vol.Release(ino, write)
	if write && s.writeback {
		s.closed(ino)
	}
}

// Flush isn't needed: the kernel writes its pages back at close by itself, and asks no more after this answer.
func (s *Server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync makes a file durable. If it comes from a thread of the Flusher, its purpose was reached before it came.
func (s *Server) Fsync(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Fsync(c, in)
	}
	ino := s.ino(in.NodeId)
	if st := s.known(ino); st != nil && st.ahead.clean() {
		s.applyTimesSoon()
	}
	if _, own := s.own.Load(in.Pid); own {
		return fuse.OK
	}
	err := s.fsync(ino, in.FsyncFlags&1 != 0)
	s.synced(ino)
	return s.status(err)
}

func (s *Server) fsync(ino uint64, datasync bool) error {
	full := func() error { return s.vol.Fsync(ino, datasync) }
	st := s.known(ino)
	if st == nil {
		return full()
	}
	if !datasync {
		s.applyTime(ino, st)
	}
	return st.ahead.sync(datasync, full)
}

// Read fills buf; it is short at the end of the file.
func (s *Server) Read(c <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if b := s.snap(in.NodeId); b != nil {
		return b.Read(c, in, buf)
	}
	n, err := s.vol.Read(s.ino(in.NodeId), buf, int64(in.Offset))
	if err != nil {
		return nil, s.status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes data. The kernel says whether setuid and setgid go.
func (s *Server) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if b := s.snap(in.NodeId); b != nil {
		return b.Write(c, in, data)
	}
	ino := s.ino(in.NodeId)
	n, err := s.write(in, ino, data, int64(in.Offset))
	if err != nil {
		return 0, s.status(err)
	}
	return uint32(n), s.settle(in, ino)
}

// Writev is Write of data in several pieces.
func (s *Server) Writev(c <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if b := s.snap(in.NodeId); b != nil {
		return b.Writev(c, in, data)
	}
	ino, done := s.ino(in.NodeId), 0
	for _, p := range data {
		n, err := s.write(in, ino, p, int64(in.Offset)+int64(done))
		if done += n; err != nil && done == 0 {
			return 0, s.status(err)
		}
		if err != nil || n < len(p) {
			break
		}
	}
	return uint32(done), s.settle(in, ino)
}

// settle does what is due after a write: O_DSYNC, unless these are cached pages (for those an fsync comes), and the st_blocks that the kernel remembers.
func (s *Server) settle(in *fuse.WriteIn, ino uint64) fuse.Status {
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		if s.writeback {
			s.pagesCame(ino)
		}
		return fuse.OK
	}
	s.interrupt(ino)
	if in.Flags&unix.O_DSYNC == 0 {
		return fuse.OK
	}
	return s.status(s.fsync(ino, in.Flags&unix.O_SYNC != unix.O_SYNC))
}

// Lseek finds data and holes. Pages that only the kernel has are brought to the backing first; else they would count as holes.
func (s *Server) Lseek(c <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Lseek(c, in, out)
	}
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	ino := s.ino(in.NodeId)
	if s.writeback && s.vol.Writers(ino) > 0 {
		s.writeBack(ino)
	}
	off, err := s.vol.Seek(ino, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return s.status(err)
}

// CopyFileRange copies inside the volume; between snapshots and live files the kernel copies by itself.
func (s *Server) CopyFileRange(c <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if s.snap(in.NodeId) != nil || s.snap(in.NodeIdOut) != nil {
		return 0, fuse.EXDEV
	}
	src, dst := s.ino(in.NodeId), s.ino(in.NodeIdOut)
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	if err := s.killPriv(&in.InHeader, dst); err != nil {
		return 0, s.status(err)
	}
	s.interrupt(dst)
	defer s.interrupt(dst)
	n, err := s.vol.CopyRange(src, int64(in.OffIn), dst, int64(in.OffOut), int(min(in.Len, 1<<30)))
	return uint32(n), s.status(err)
}

// Fallocate is fallocate(2).
func (s *Server) Fallocate(c <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if s.snap(in.NodeId) != nil {
		return fuse.EROFS
	}
	ino := s.ino(in.NodeId)
	if int64(in.Offset) < 0 || int64(in.Length) <= 0 {
		return fuse.Status(syscall.EINVAL)
	}
	if err := s.killPriv(&in.InHeader, ino); err != nil {
		return s.status(err)
	}
	s.interrupt(ino)
	defer s.interrupt(ino)
	return s.status(s.vol.Fallocate(s.caller(&in.InHeader, 0), ino, in.Mode, int64(in.Offset), int64(in.Length)))
}

func (s *Server) write(in *fuse.WriteIn, ino uint64, p []byte, off int64) (int, error) {
	return s.vol.Write(ino, p, off, cow.WriteFlags{
		KillPriv: in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0, Caller: backing.Caller{Uid: in.Uid, Gid: in.Gid, Pid: in.Pid},
	})
}
