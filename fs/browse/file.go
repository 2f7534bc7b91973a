package browse

import (
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// Open allows reading. Pages of an earlier open stay good, and there is no state: a read carries the node id.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&(unix.O_TRUNC|unix.O_CREAT) != 0 {
		return fuse.EROFS
	}
	v, _, s := f.acquire(in.NodeId)
	if !s.Ok() {
		return s
	}
	f.release(v)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read reads into the request's own buffer, in one piece.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	v, ino, s := f.acquire(in.NodeId)
	if !s.Ok() {
		return nil, s
	}
	defer f.release(v)
	buf = buf[:min(len(buf), int(in.Size))]
	n, err := v.rd.ReadAt(background(), ino, buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.failed(v, ino, err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Lseek finds data and holes; all other kinds of seek are the kernel's.
func (f *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return f.withInode(in.NodeId, func(v *volume, node *tree.Inode) fuse.Status {
		off := int64(in.Offset)
		if off < 0 || off >= node.Size {
			return fuse.Status(unix.ENXIO)
		}
		find := nextData
		switch in.Whence {
		case unix.SEEK_DATA:
		case unix.SEEK_HOLE:
			find = nextHole
		default:
			return fuse.EINVAL
		}
		pos, err := find(v.rd, node, off)
		if errors.Is(err, io.EOF) {
			return fuse.Status(unix.ENXIO)
		}
		if err != nil {
			return f.failed(v, node.Ino, err)
		}
		out.Offset = uint64(pos)
		return fuse.OK
	})
}

func nextData(rd Reader, node *tree.Inode, off int64) (int64, error) {
	start, _, err := rd.NextData(background(), node.Ino, off)
	if err == nil && start >= node.Size {
		return 0, io.EOF
	}
	return start, err
}

// nextHole joins ranges of data that touch. The end of the file is a hole.
func nextHole(rd Reader, node *tree.Inode, off int64) (int64, error) {
	for off < node.Size {
		start, end, err := rd.NextData(background(), node.Ino, off)
		if errors.Is(err, io.EOF) || (err == nil && start > off) {
			return off, nil
		}
		if err != nil {
			return 0, err
		}
		off = end
	}
	return node.Size, nil
}

// Readlink returns the target as stored.
func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) (target []byte, s fuse.Status) {
	if h.NodeId == RootID {
		return nil, fuse.EINVAL
	}
	s = f.withInode(h.NodeId, func(_ *volume, node *tree.Inode) fuse.Status {
		if !node.IsSymlink() {
			return fuse.EINVAL
		}
		target = []byte(node.Target)
		return fuse.OK
	})
	return target, s
}

// Release, Flush, Fsync and FsyncDir have nothing to do.
func (f *FS) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// Flush does nothing.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fsync does nothing: a snapshot that can be read is durable.
func (f *FS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// FsyncDir does nothing.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// OnUnmount does nothing.
func (f *FS) OnUnmount() {}
