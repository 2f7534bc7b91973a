package fs

import (
	"bytes"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/fs/hold"
)

// GetXAttr reads an extended attribute; ACLs come this way too.
func (s *Server) GetXAttr(c <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if attr == hold.AliveAttr && h.NodeId == rootID {
		return 0, fuse.OK // asks whether anybody answers, not about the backing, whose disk may be slow
	}
	if b := s.snap(h.NodeId); b != nil {
		return b.GetXAttr(c, h, attr, dest)
	}
	n, err := s.vol.Getxattr(s.ino(h.NodeId), attr, dest)
	return uint32(n), s.status(err)
}

// ListXAttr lists the names of extended attributes.
func (s *Server) ListXAttr(c <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if b := s.snap(h.NodeId); b != nil {
		return b.ListXAttr(c, h, dest)
	}
	ino := s.ino(h.NodeId)
	if h.Uid == 0 {
		n, err := s.vol.Listxattr(ino, dest)
		return uint32(n), s.status(err)
	}
	names, err := s.visible(ino)
	switch {
	case err != nil:
		return 0, s.status(err)
	case len(dest) > 0 && len(dest) < len(names):
		return uint32(len(names)), fuse.ERANGE
	}
	copy(dest, names)
	return uint32(len(names)), fuse.OK
}

// visible lists an inode's attributes as users see them: trusted ones are for the administrator only, and the kernel leaves that to us.
func (s *Server) visible(ino uint64) ([]byte, error) {
	buf := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := s.vol.Listxattr(ino, buf)
	if err != nil {
		return nil, err
	}
	var out []byte
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if len(name) > 0 && !bytes.HasPrefix(name, []byte("trusted.")) {
			out = append(append(out, name...), 0)
		}
	}
	return out, nil
}

// SetXAttr sets an extended attribute. With an access ACL the kernel says whether setgid goes.
func (s *Server) SetXAttr(c <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.SetXAttr(c, in, attr, data)
	}
	ino, who := s.ino(in.NodeId), s.caller(&in.InHeader, 0)
	if err := s.vol.Setxattr(who, ino, attr, data, int(in.Flags)); err != nil {
		return s.status(err)
	}
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID == 0 {
		return fuse.OK
	}
	a, err := s.vol.Getattr(ino)
	if err == nil && a.Mode&unix.S_ISGID != 0 {
		_, err = s.vol.Setattr(who, ino, cow.SetAttr{Valid: backing.SetMode, Mode: a.Mode & 0o7777 &^ unix.S_ISGID})
	}
	return s.status(err)
}

// RemoveXAttr removes an extended attribute.
func (s *Server) RemoveXAttr(c <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.RemoveXAttr(c, h, attr)
	}
	return s.status(s.vol.Removexattr(s.caller(h, 0), s.ino(h.NodeId), attr))
}
