package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/fs/cow"
)

// Lookup finds a name. A name that doesn't exist is remembered by the kernel too.
func (s *Server) Lookup(c <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.Lookup(c, h, name, out)
	}
	a, err := s.vol.Lookup(s.ino(h.NodeId), name)
	if err == nil {
		return s.entry(out, &a)
	}
	st := s.status(err)
	if st != fuse.ENOENT {
		return st
	}
	if s.isSnapDir(h.NodeId, name) {
		return s.browse.Root(out)
	}
	out.NodeId = 0
	out.SetEntryTimeout(longTime)
	return fuse.OK
}

// isSnapDir says that a name which the volume doesn't have leads to the snapshots.
func (s *Server) isSnapDir(dir uint64, name string) bool {
	return dir == rootID && s.browse != nil && name == s.snapDir
}

// hidden says that the name means the snapshots' directory: it can't be removed or replaced.
func (s *Server) hidden(dir uint64, name string) bool {
	if !s.isSnapDir(dir, name) {
		return false
	}
	a, err := s.vol.Lookup(s.root, name)
	if err == nil {
		s.vol.Forget(a.Ino, 1)
	}
	return err != nil
}

// Forget takes references that the kernel held.
func (s *Server) Forget(nodeid, n uint64) {
	if b := s.snap(nodeid); b != nil {
		b.Forget(nodeid, n)
		return
	}
	s.vol.Forget(s.ino(nodeid), n)
}

// made answers a creating request.
func (s *Server) made(out *fuse.EntryOut, a cow.Attr, err error) fuse.Status {
	if err != nil {
		return s.status(err)
	}
	return s.entry(out, &a)
}

// Mknod makes a FIFO, socket, device or regular file.
func (s *Server) Mknod(c <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Mknod(c, in, name, out)
	}
	a, err := s.vol.Mknod(s.caller(&in.InHeader, in.Umask), s.ino(in.NodeId), name, in.Mode, userDev(in.Rdev))
	return s.made(out, a, err)
}

// Mkdir makes a directory.
func (s *Server) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Mkdir(c, in, name, out)
	}
	a, err := s.vol.Mkdir(s.caller(&in.InHeader, in.Umask), s.ino(in.NodeId), name, in.Mode)
	return s.made(out, a, err)
}

// Symlink makes a symbolic link.
func (s *Server) Symlink(c <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.Symlink(c, h, target, name, out)
	}
	a, err := s.vol.Symlink(s.caller(h, 0), s.ino(h.NodeId), name, target)
	return s.made(out, a, err)
}

// Link gives an inode one more name. One of a snapshot can't get a name in the live volume.
func (s *Server) Link(c <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Link(c, in, name, out)
	}
	if s.snap(in.Oldnodeid) != nil {
		return fuse.EXDEV
	}
	a, err := s.vol.Link(s.caller(&in.InHeader, 0), s.ino(in.Oldnodeid), s.ino(in.NodeId), name)
	return s.made(out, a, err)
}

// Unlink removes a name of what is no directory.
func (s *Server) Unlink(c <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.Unlink(c, h, name)
	}
	_, err := s.vol.Unlink(s.caller(h, 0), s.ino(h.NodeId), name)
	return s.removed(h, name, err)
}

// Rmdir removes an empty directory.
func (s *Server) Rmdir(c <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.Rmdir(c, h, name)
	}
	_, err := s.vol.Rmdir(s.caller(h, 0), s.ino(h.NodeId), name)
	return s.removed(h, name, err)
}

func (s *Server) removed(h *fuse.InHeader, name string, err error) fuse.Status {
	st := s.status(err)
	if st == fuse.ENOENT && s.isSnapDir(h.NodeId, name) {
		return fuse.EROFS
	}
	return st
}

// Rename moves a name. The snapshots' directory is in nobody's way but its own.
func (s *Server) Rename(c <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if s.snap(in.NodeId) != nil || s.snap(in.Newdir) != nil || s.hidden(in.NodeId, oldName) || s.hidden(in.Newdir, newName) {
		return fuse.EROFS
	}
	_, err := s.vol.Rename(s.caller(&in.InHeader, 0), s.ino(in.NodeId), oldName, s.ino(in.Newdir), newName, in.Flags)
	return s.status(err)
}

// Readlink tells a symlink's target; the kernel keeps it.
func (s *Server) Readlink(c <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	if b := s.snap(h.NodeId); b != nil {
		return b.Readlink(c, h)
	}
	target, err := s.vol.Readlink(s.ino(h.NodeId))
	return []byte(target), s.status(err)
}

// Access is asked only where the kernel doesn't check permissions itself; it does.
func (s *Server) Access(c <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return fuse.Status(syscall.ENOSYS)
}
