package browse

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/snapshot/tree"
)

// GetXAttr returns the value as stored. The kernel itself asks for system.posix_acl_access and security.capability, and keeps trusted. from those who may not see it.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (n uint32, s fuse.Status) {
	if h.NodeId == RootID {
		return 0, fuse.ENODATA
	}
	s = f.withInode(h.NodeId, func(_ *volume, node *tree.Inode) fuse.Status {
		for _, x := range node.Xattrs {
			if x.Name == name {
				n = uint32(len(x.Value))
				return put(dest, x.Value)
			}
		}
		return fuse.ENODATA
	})
	return n, s
}

// ListXAttr lists the names as stored; those in trusted. for root only.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (n uint32, s fuse.Status) {
	if h.NodeId == RootID {
		return 0, fuse.OK
	}
	s = f.withInode(h.NodeId, func(_ *volume, node *tree.Inode) fuse.Status {
		var names []byte
		for _, x := range node.Xattrs {
			if h.Uid != 0 && strings.HasPrefix(x.Name, "trusted.") {
				continue
			}
			names = append(append(names, x.Name...), 0)
		}
		n = uint32(len(names))
		return put(dest, names)
	})
	return n, s
}

// put copies a value, or says that its size is too great; go-fuse makes a question for the size of it if dest is empty.
func put(dest, value []byte) fuse.Status {
	if len(value) > len(dest) {
		return fuse.ERANGE
	}
	copy(dest, value)
	return fuse.OK
}
