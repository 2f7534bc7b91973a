package snapshot

import (
	"context"

	"graphvol/snapshot/tree"
)

// BlockSize is the unit, in bytes, in which changes are tracked and content is stored.
const BlockSize = 4096

// SegmentBlocks is the number of blocks in a segment, SegmentSize its bytes.
const (
	SegmentBlocks = 32
	SegmentSize   = SegmentBlocks * BlockSize
)

// DirtyInode tells what changed of one inode in an epoch. Attributes count as changed in any case.
type DirtyInode struct {
	Ino      uint64
	Content  bool     // all content may differ
	AllNames bool     // a directory: all names may differ
	Names    []string // a directory: these names may differ
	Fresh    bool     // the inode is new, or its number was reused: nothing of the parent's holds for it
	// Runs gives the dirty blocks as runs of n blocks from block first on, ascending; nil if there are none. It may be
	// called until Source.Done, from any goroutine.
	Runs func(yield func(first, n uint64) bool)
}

// Source is an ended epoch: the volume as of one barrier, however long ago that was. All methods but Dirty are safe for
// concurrent use. A dirty map may say too much, never too little.
type Source interface {
	// Epoch is the number of the ended epoch. Completing its snapshot makes the changes of all epochs up to it part of the snapshot.
	Epoch() uint64
	// Root is the inode number of the volume's root directory.
	Root() uint64
	// Full says that everything may differ from the parent, so that the whole tree is walked and Dirty isn't asked.
	Full() bool
	// Dirty gives the changed inodes in ascending order, those that were gone at the barrier too.
	Dirty(yield func(DirtyInode) bool)
	// Inode gives attributes, extended attributes and link target; fs.ErrNotExist if the inode was gone at the barrier.
	Inode(ctx context.Context, ino uint64) (tree.Inode, error)
	// Entry gives one name of a directory; false if it wasn't there.
	Entry(ctx context.Context, dir uint64, name string) (tree.Dirent, bool, error)
	// Entries gives all names of a directory, without "." and "..", in any order.
	Entries(ctx context.Context, dir uint64) ([]tree.Dirent, error)
	// ReadAt fills p with the file's bytes from off on, zeros in holes and after the end. off and len(p) are multiples
	// of BlockSize.
	ReadAt(ctx context.Context, ino uint64, p []byte, off int64) error
	// NextData gives the first range of data at or after off; if off is in data, the range begins there. The end may
	// be that of the file. io.EOF: there is no data at or after off.
	NextData(ctx context.Context, ino uint64, off int64) (start, end int64, err error)
	// Done says that this inode is read for the last time: it needs no more preimages for this epoch.
	Done(ino uint64)
	// Release ends the source. sealed: its changes are in a complete snapshot and may be forgotten. Not sealed: they
	// are to be merged into the next epoch, before Release returns, because the seal of that epoch may begin then.
	// Repo.Seal calls it exactly once on every path; calling it again does nothing.
	Release(sealed bool)
}

// Live gives bytes of the live volume that are provably those of a snapshot.
type Live interface {
	// ReadClean fills p from the live file ino, generation gen, if everything in [off, off+len(p)) is unchanged since
	// the barrier of the snapshot with this id; false if that isn't sure, and p then holds nothing of meaning.
	ReadClean(ctx context.Context, snapshotID string, ino, gen uint64, p []byte, off int64) (ok bool, err error)
}
