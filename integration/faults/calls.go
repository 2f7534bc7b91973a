package faults

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// calls is go-fuse's loopback with Disk.enter before each call that matters.
type calls struct {
	fuse.RawFileSystem
	disk *Disk
}

var _ fuse.RawFileSystem = (*calls)(nil)

// fail tells whether a call is to fail.
func (c *calls) fail(k Kind, path string) fuse.Status {
	errno, _ := c.disk.enter(k, path)
	return fuse.Status(errno)
}

// entry finishes a call that gives an inode for a name.
func (c *calls) entry(st fuse.Status, parent uint64, name string, out *fuse.EntryOut) fuse.Status {
	if st.Ok() {
		c.disk.names.learn(parent, name, out)
	}
	return st
}

func (c *calls) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if st := c.fail(Stat, c.disk.names.of(h.NodeId, name)); !st.Ok() {
		return st
	}
	return c.entry(c.RawFileSystem.Lookup(cancel, h, name, out), h.NodeId, name, out)
}

func (c *calls) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if st := c.fail(Stat, c.disk.names.of(in.NodeId)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.GetAttr(cancel, in, out)
}

// Statx isn't implemented: the kernel asks GetAttr then.
func (c *calls) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status { return fuse.ENOSYS }

func (c *calls) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Valid&fuse.FATTR_SIZE == 0 {
		return c.RawFileSystem.SetAttr(cancel, in, out)
	}
	path := c.disk.names.of(in.NodeId)
	if st := c.fail(Truncate, path); !st.Ok() {
		return st
	}
	c.disk.opened(in.NodeId, path, false)
	st := c.RawFileSystem.SetAttr(cancel, in, out)
	if st.Ok() {
		c.disk.truncated(in.NodeId, int64(in.Size))
	}
	return st
}

func (c *calls) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := c.fail(Create, c.disk.names.of(in.NodeId, name)); !st.Ok() {
		return st
	}
	return c.entry(c.RawFileSystem.Mknod(cancel, in, name, out), in.NodeId, name, out)
}

func (c *calls) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := c.fail(Mkdir, c.disk.names.of(in.NodeId, name)); !st.Ok() {
		return st
	}
	return c.entry(c.RawFileSystem.Mkdir(cancel, in, name, out), in.NodeId, name, out)
}

func (c *calls) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := c.fail(Unlink, c.disk.names.of(h.NodeId, name)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.Unlink(cancel, h, name)
}

func (c *calls) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := c.fail(Unlink, c.disk.names.of(h.NodeId, name)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.Rmdir(cancel, h, name)
}

func (c *calls) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, to := c.disk.names.of(in.NodeId, oldName), c.disk.names.of(in.Newdir, newName)
	if st := c.fail(Rename, from); !st.Ok() {
		return st
	}
	st := c.RawFileSystem.Rename(cancel, in, oldName, newName)
	if st.Ok() {
		c.disk.names.moved(from, to)
	}
	return st
}

func (c *calls) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := c.fail(Link, c.disk.names.of(in.NodeId, name)); !st.Ok() {
		return st
	}
	return c.entry(c.RawFileSystem.Link(cancel, in, name, out), in.NodeId, name, out)
}

func (c *calls) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	path := c.disk.names.of(in.NodeId, name)
	if st := c.fail(Create, path); !st.Ok() {
		return st
	}
	st := c.entry(c.RawFileSystem.Create(cancel, in, name, out), in.NodeId, name, &out.EntryOut)
	if st.Ok() {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		c.disk.opened(out.NodeId, path, true)
	}
	return st
}

func (c *calls) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	path := c.disk.names.of(in.NodeId)
	if st := c.fail(Open, path); !st.Ok() {
		return st
	}
	c.disk.opened(in.NodeId, path, false)
	st := c.RawFileSystem.Open(cancel, in, out)
	out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	return st
}

func (c *calls) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if st := c.fail(Read, c.disk.names.of(in.NodeId)); !st.Ok() {
		return nil, st
	}
	return c.RawFileSystem.Read(cancel, in, buf)
}

func (c *calls) Write(cancel <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	errno, short := c.disk.enter(Write, c.disk.names.of(in.NodeId))
	if short && len(p) > 1 {
		p = p[:len(p)/2]
	} else if errno != 0 {
		return 0, fuse.Status(errno)
	}
	n, st := c.RawFileSystem.Write(cancel, in, p)
	c.disk.written(in.NodeId, int64(in.Offset), int64(n))
	return n, st
}

// Writev isn't implemented: go-fuse calls Write then.
func (c *calls) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// CopyFileRange isn't implemented: programs read and write instead.
func (c *calls) CopyFileRange(<-chan struct{}, *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// Fsync flushes nothing in truth: what would be durable is what Disk remembers.
func (c *calls) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	path := c.disk.names.of(in.NodeId)
	st := c.fail(Fsync, path)
	if err := c.disk.synced(in.NodeId, path, st.Ok()); err != nil {
		return fuse.Status(syscall.EIO)
	}
	return st
}

func (c *calls) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return c.fail(FsyncDir, c.disk.names.of(in.NodeId))
}

func (c *calls) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if st := c.fail(Fallocate, c.disk.names.of(in.NodeId)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.Fallocate(cancel, in)
}

func (c *calls) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if st := c.fail(Open, c.disk.names.of(in.NodeId)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.OpenDir(cancel, in, out)
}

func (c *calls) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if st := c.fail(Readdir, c.disk.names.of(in.NodeId)); !st.Ok() {
		return st
	}
	return c.RawFileSystem.ReadDir(cancel, in, out)
}
