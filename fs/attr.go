package fs

import (
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
)

// fill translates attributes, and tells how long the kernel may keep them.
func (s *Server) fill(out *fuse.Attr, a *cow.Attr) time.Duration {
	translate(out, a)
	return s.told(a)
}

func translate(out *fuse.Attr, a *cow.Attr) {
	out.Ino, out.Size, out.Blocks = a.Ino, uint64(a.Size), uint64(a.Blocks)
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
	out.Mode, out.Nlink, out.Uid, out.Gid = a.Mode, a.Nlink, a.Uid, a.Gid
	out.Rdev, out.Blksize = kernelDev(a.Rdev), a.Blksize
}

// kernelDev encodes a device number as the kernel's new_encode_dev does; only then all 12 and 20 bits survive 32 bits.
func kernelDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func userDev(dev uint32) uint64 {
	return unix.Mkdev(dev&0xfff00>>8, dev&0xff|dev>>12&0xfff00)
}

func (s *Server) entry(out *fuse.EntryOut, a *cow.Attr) fuse.Status {
	if a.Ino&browseBit != 0 {
		s.vol.Forget(a.Ino, 1)
		return fuse.Status(syscall.EOVERFLOW)
	}
	out.NodeId, out.Generation = s.node(a.Ino), a.Gen&0xffffffff // the kernel keeps 32 bits
	out.SetEntryTimeout(longTime)
	out.SetAttrTimeout(s.fill(&out.Attr, a))
	return fuse.OK
}

// GetAttr is stat.
func (s *Server) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.GetAttr(c, in, out)
	}
	a, err := s.vol.Getattr(s.ino(in.NodeId))
	if err != nil {
		return s.status(err)
	}
	out.SetTimeout(s.fill(&out.Attr, &a))
	return fuse.OK
}

// Statx is asked when somebody wants the birth time.
func (s *Server) Statx(c <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.Statx(c, in, out)
	}
	a, err := s.vol.Getattr(s.ino(in.NodeId))
	if err != nil {
		return s.status(err)
	}
	var f fuse.Attr
	out.SetTimeout(s.fill(&f, &a))
	x := &out.Statx
	x.Mask, x.Blksize, x.Nlink = unix.STATX_BASIC_STATS, f.Blksize, f.Nlink
	x.Uid, x.Gid, x.Mode, x.Ino, x.Size, x.Blocks = f.Uid, f.Gid, uint16(f.Mode), f.Ino, f.Size, f.Blocks
	x.Atime, x.Mtime, x.Ctime = sxTime(a.Atime), sxTime(a.Mtime), sxTime(a.Ctime)
	if a.Btime != (backing.Time{}) {
		x.Mask |= unix.STATX_BTIME
		x.Btime = sxTime(a.Btime)
	}
	x.RdevMajor, x.RdevMinor = unix.Major(a.Rdev), unix.Minor(a.Rdev)
	return fuse.OK
}

func sxTime(t backing.Time) fuse.SxTime { return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }

// SetAttr is chmod, chown, truncate and utimensat. What sets nothing is chown(-1, -1).
func (s *Server) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.SetAttr(c, in, out)
	}
	ino, set := s.ino(in.NodeId), setAttr(in)
	if s.holdMtime(ino, &set, out) {
		return fuse.OK
	}
	a, err := s.setattr(s.caller(&in.InHeader, 0), ino, set)
	if errors.Is(err, unix.ESTALE) && s.savesTimes(in) {
		return fuse.OK
	}
	if err != nil {
		return s.status(err)
	}
	s.savedMtime(ino, &set)
	s.answer(out, &a)
	return fuse.OK
}

// savesTimes tells whether the kernel saves the times that it keeps of an inode. If that had just lost its last name when the server was killed, the inode is gone,
// and nobody will see its times; but whoever waits in syncfs would see the failure.
func (s *Server) savesTimes(in *fuse.SetAttrIn) bool {
	const times = fuse.FATTR_MTIME | fuse.FATTR_CTIME
	return s.writeback && in.Valid&^fuse.FATTR_FH == times
}

func (s *Server) setattr(c cow.Caller, ino uint64, set cow.SetAttr) (cow.Attr, error) {
	if set.Valid&backing.SetSize != 0 {
		s.interrupt(ino)
		defer s.interrupt(ino)
		return s.truncate(c, ino, set)
	}
	if st := s.known(ino); st != nil {
		s.applyTime(ino, st)
	}
	return s.vol.Setattr(c, ino, set)
}

// setAttr translates what is to be set.
func setAttr(in *fuse.SetAttrIn) cow.SetAttr {
	set := cow.SetAttr{
		Mode: in.Mode & 0o7777, Uid: in.Uid, Gid: in.Gid, Size: int64(in.Size),
		Atime: backing.Time{Sec: int64(in.Atime), Nsec: in.Atimensec}, Mtime: backing.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec},
	}
	for _, f := range []struct {
		fuse uint32
		vol  backing.SetMask
	}{
		{fuse.FATTR_MODE, backing.SetMode}, {fuse.FATTR_UID, backing.SetUid}, {fuse.FATTR_GID, backing.SetGid},
		{fuse.FATTR_SIZE, backing.SetSize}, {fuse.FATTR_ATIME, backing.SetAtime}, {fuse.FATTR_MTIME, backing.SetMtime},
		{fuse.FATTR_ATIME_NOW, backing.SetAtimeNow}, {fuse.FATTR_MTIME_NOW, backing.SetMtimeNow},
		{fuse.FATTR_KILL_SUIDGID, backing.SetKillPriv},
	} {
		if in.Valid&f.fuse != 0 {
			set.Valid |= f.vol
		}
	}
	return set
}

// answer answers SETATTR. It isn't noted as told: when the kernel only saves its own times, it doesn't look at the answer.
func (s *Server) answer(out *fuse.AttrOut, a *cow.Attr) {
	translate(&out.Attr, a)
	out.SetTimeout(s.goodFor(a))
}

// killPriv does for calls that carry no flag what the kernel left to us: an unprivileged caller's change of data clears setuid and setgid.
func (s *Server) killPriv(h *fuse.InHeader, ino uint64) error {
	if h.Uid == 0 {
		return nil
	}
	a, err := s.vol.Getattr(ino)
	if err != nil || a.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return err
	}
	_, err = s.vol.Setattr(s.caller(h, 0), ino, cow.SetAttr{Valid: backing.SetKillPriv})
	return err
}
