package snapshot

import (
	"context"

	"graphvol/snapshot/tree"
)

// Tree is a tree of files to restore from: a snapshot (*Reader), or a directory that shows one (DirTree). Its methods
// are safe for concurrent use. What they return is verified.
type Tree interface {
	Root() uint64
	// Inode gives an inode without its extended attributes.
	Inode(ctx context.Context, ino uint64) (tree.Inode, error)
	// EachXattr calls fn for an inode's extended attributes, one at a time. An error of fn ends it and is returned.
	EachXattr(ctx context.Context, ino uint64, fn func(tree.Xattr) error) error
	// Lookup's error wraps fs.ErrNotExist if there is no such name.
	Lookup(ctx context.Context, dir uint64, name string) (tree.Dirent, error)
	ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error)
	Open(ctx context.Context, ino uint64) (TreeFile, error)
}

// TreeFile is a regular file of a Tree. Its methods but Close are safe for concurrent use.
type TreeFile interface {
	// ReadAt is that of io.ReaderAt.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// NextData gives the first range of data at or after off; io.EOF if there is none.
	NextData(ctx context.Context, off int64) (start, end int64, err error)
	Close() error
}

var _ Tree = (*Reader)(nil)

// Tree gives the snapshot as something to restore from. The Reader must stay open.
func (rd *Reader) Tree() Tree { return rd }

// Open gives a file as TreeFile. Nothing is read yet.
func (rd *Reader) Open(_ context.Context, ino uint64) (TreeFile, error) {
	return readerFile{rd, ino}, nil
}

type readerFile struct {
	rd  *Reader
	ino uint64
}

func (f readerFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return f.rd.ReadAt(ctx, f.ino, p, off)
}

func (f readerFile) NextData(ctx context.Context, off int64) (int64, int64, error) {
	return f.rd.NextData(ctx, f.ino, off)
}

func (f readerFile) Close() error { return nil }
