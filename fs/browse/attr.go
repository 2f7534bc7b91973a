package browse

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

const (
	blockSize  = 4096
	sectorSize = 512 // the unit of st_blocks
)

// fill translates a stored inode.
func fill(a *fuse.Attr, id uint64, in *tree.Inode) {
	*a = fuse.Attr{
		Ino: id, Size: uint64(in.Size), Blocks: in.Blocks * (blockSize / sectorSize), Mode: in.Mode, Nlink: in.Nlink,
		Owner: fuse.Owner{Uid: in.UID, Gid: in.GID}, Rdev: uint32(in.Rdev), Blksize: blockSize,
		Atime: uint64(in.Mtime.Sec), Atimensec: in.Mtime.Nsec,
		Mtime: uint64(in.Mtime.Sec), Mtimensec: in.Mtime.Nsec,
		Ctime: uint64(in.Ctime.Sec), Ctimensec: in.Ctime.Nsec,
	}
}

// fillEntry answers a look-up. The kernel drops a cached inode when an id comes back with another generation.
func fillEntry(out *fuse.EntryOut, id uint64, v *volume, in *tree.Inode) {
	out.NodeId = id
	out.Generation = in.Gen ^ v.snap.Seq*0x9e3779b97f4a7c15
	out.SetEntryTimeout(immutable)
	out.SetAttrTimeout(immutable)
	fill(&out.Attr, id, in)
}

// Root answers the look-up of .snapshots in the volume's root.
func (f *FS) Root(out *fuse.EntryOut) fuse.Status {
	out.NodeId = RootID
	out.SetEntryTimeout(immutable)
	out.SetAttrTimeout(nameTimeout)
	return f.rootAttr(&out.Attr)
}

func (f *FS) rootAttr(a *fuse.Attr) fuse.Status {
	snaps, err := f.cat.Snapshots()
	if err != nil {
		return f.failed(nil, 0, err)
	}
	*a = fuse.Attr{Ino: RootID, Mode: unix.S_IFDIR | 0o555, Nlink: 2, Blksize: blockSize}
	var newest time.Time
	for _, s := range snaps {
		if visible(s) {
			a.Nlink++
			newest = s.Created
		}
	}
	if !newest.IsZero() {
		a.SetTimes(&newest, &newest, &newest)
	}
	return fuse.OK
}

// GetAttr returns the attributes as stored.
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == RootID {
		out.SetTimeout(nameTimeout)
		return f.rootAttr(&out.Attr)
	}
	out.SetTimeout(immutable)
	return f.withInode(in.NodeId, func(_ *volume, node *tree.Inode) fuse.Status {
		fill(&out.Attr, in.NodeId, node)
		return fuse.OK
	})
}

// Statx is GetAttr with the time of birth.
func (f *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	var a fuse.Attr
	if in.NodeId == RootID {
		out.SetTimeout(nameTimeout)
		s := f.rootAttr(&a)
		fillStatx(&out.Statx, &a)
		return s
	}
	out.SetTimeout(immutable)
	return f.withInode(in.NodeId, func(_ *volume, node *tree.Inode) fuse.Status {
		fill(&a, in.NodeId, node)
		fillStatx(&out.Statx, &a)
		out.Btime = fuse.SxTime{Sec: uint64(node.Btime.Sec), Nsec: node.Btime.Nsec}
		out.Mask |= unix.STATX_BTIME
		return fuse.OK
	})
}

func fillStatx(x *fuse.Statx, a *fuse.Attr) {
	*x = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Mode: uint16(a.Mode), Ino: a.Ino, Size: a.Size, Blocks: a.Blocks,
		Atime: fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec}, Mtime: fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec}, Ctime: fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec},
		RdevMajor: unix.Major(uint64(a.Rdev)), RdevMinor: unix.Minor(uint64(a.Rdev)),
	}
}

// Lookup finds a snapshot by name, or a name in one.
func (f *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId == RootID {
		return f.lookupSnapshot(cancel, name, out)
	}
	v, dir, s := f.acquire(h.NodeId)
	if !s.Ok() {
		return s
	}
	defer f.release(v)
	switch name {
	case ".":
		return f.entry(v, dir, out)
	case "..":
		return f.parent(v, dir, out)
	}
	e, err := v.rd.Lookup(background(), dir, name)
	if err != nil {
		return f.failed(v, dir, err)
	}
	return f.entry(v, e.Ino, out)
}

func (f *FS) lookupSnapshot(cancel <-chan struct{}, name string, out *fuse.EntryOut) fuse.Status {
	snap, s := f.find(cancel, name)
	if !s.Ok() {
		return s
	}
	id, err := NodeID(snap.Seq, 0)
	if err != nil {
		return f.failed(nil, 0, err)
	}
	v, _, s := f.acquire(id)
	if !s.Ok() {
		return s
	}
	defer f.release(v)
	s = f.entry(v, v.rd.Root(), out)
	out.SetEntryTimeout(nameTimeout)
	return s
}

func (f *FS) entry(v *volume, ino uint64, out *fuse.EntryOut) fuse.Status {
	id, err := NodeID(v.snap.Seq, ino)
	if err != nil {
		return f.failed(v, ino, err)
	}
	node, err := v.rd.Inode(background(), ino)
	if err != nil {
		return f.failed(v, ino, err)
	}
	fillEntry(out, id, v, &node)
	return fuse.OK
}

// parent answers a look-up of "..", which only a file handle from before a remount leads to. Snapshots don't store it, so it is searched for.
func (f *FS) parent(v *volume, dir uint64, out *fuse.EntryOut) fuse.Status {
	if dir == v.rd.Root() {
		return f.Root(out)
	}
	p, ok := findParent(v.rd, dir)
	if !ok {
		return estale
	}
	return f.entry(v, p, out)
}

// Forget has nothing to forget.
func (f *FS) Forget(nodeid, nlookup uint64) {}

// withInode calls fn with the inode of a node.
func (f *FS) withInode(id uint64, fn func(*volume, *tree.Inode) fuse.Status) fuse.Status {
	v, ino, s := f.acquire(id)
	if !s.Ok() {
		return s
	}
	defer f.release(v)
	node, err := v.rd.Inode(background(), ino)
	if err != nil {
		return f.failed(v, ino, err)
	}
	return fn(v, &node)
}

// StatFs shows what a snapshot holds: nothing of it is free.
func (f *FS) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: 255}
	add := func(s index.Snapshot) {
		out.Blocks += uint64(s.Bytes+blockSize-1) / blockSize
		out.Files += uint64(s.Files)
	}
	if h.NodeId != RootID {
		v, _, s := f.acquire(h.NodeId)
		if !s.Ok() {
			return s
		}
		defer f.release(v)
		add(v.snap)
		return fuse.OK
	}
	snaps, err := f.cat.Snapshots()
	if err != nil {
		return f.failed(nil, 0, err)
	}
	for _, s := range snaps {
		if s.State == index.StateComplete {
			add(s)
		}
	}
	return fuse.OK
}

// Access grants all but writing; the kernel doesn't ask on a mount with default_permissions.
func (f *FS) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	if in.Mask&fuse.W_OK != 0 {
		return fuse.EROFS
	}
	return fuse.OK
}
