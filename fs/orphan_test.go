package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestTimesOfAnInodeThatIsGone: the kernel may save the times of an inode that went with the server before; that must not fail syncfs. What
// somebody sets is another matter.
func TestTimesOfAnInodeThatIsGone(t *testing.T) {
	for cache, want := range map[Cache]fuse.Status{WriteBack: fuse.OK, WriteThrough: fuse.Status(unix.ESTALE)} {
		w := mount(t, cache)
		for valid, want := range map[uint32]fuse.Status{
			fuse.FATTR_MTIME | fuse.FATTR_CTIME:                   want,
			fuse.FATTR_MTIME | fuse.FATTR_CTIME | fuse.FATTR_MODE: fuse.Status(unix.ESTALE),
			fuse.FATTR_SIZE: fuse.Status(unix.ESTALE),
		} {
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: fuse.InHeader{NodeId: 1 << 40}, Valid: valid}}
			if got := w.srv.SetAttr(nil, &in, &fuse.AttrOut{}); got != want {
				t.Errorf("%s, valid %#x: %v, want %v", cache, valid, got, want)
			}
		}
	}
}
