package browse

import (
	"io/fs"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/snapshot/tree"
)

// GetXAttr returns the value as stored. The kernel itself asks for system.posix_acl_access and security.capability, and keeps trusted. from those who may not see it.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (n uint32, s fuse.Status) {
	answer := fuse.ENODATA
	s = f.eachXattr(h.NodeId, func(x tree.Xattr) error {
		if x.Name < name {
			return nil
		}
		if x.Name == name {
			n = uint32(len(x.Value))
			answer = put(dest, x.Value)
		}
		return fs.SkipAll
	})
	if s.Ok() {
		s = answer
	}
	return n, s
}

// ListXAttr lists the names as stored; those in trusted. for root only.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (n uint32, s fuse.Status) {
	var names []byte
	s = f.eachXattr(h.NodeId, func(x tree.Xattr) error {
		if h.Uid == 0 || !strings.HasPrefix(x.Name, "trusted.") {
			names = append(append(names, x.Name...), 0)
		}
		return nil
	})
	if !s.Ok() {
		return 0, s
	}
	return uint32(len(names)), put(dest, names)
}

// eachXattr goes through a node's extended attributes. The directory of snapshots has none.
func (f *FS) eachXattr(id uint64, fn func(tree.Xattr) error) fuse.Status {
	if id == RootID {
		return fuse.OK
	}
	v, ino, s := f.acquire(id)
	if !s.Ok() {
		return s
	}
	defer f.release(v)
	if err := v.rd.EachXattr(background(), ino, fn); err != nil {
		return f.failed(v, ino, err)
	}
	return fuse.OK
}

// put copies a value, or says that its size is too great; go-fuse makes a question for the size of it if dest is empty.
func put(dest, value []byte) fuse.Status {
	if len(value) > len(dest) {
		return fuse.ERANGE
	}
	copy(dest, value)
	return fuse.OK
}
