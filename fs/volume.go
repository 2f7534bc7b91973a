package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
)

// Volume is what the front serves. Errors are, or unwrap to, syscall.Errno. *cow.Volume is one.
type Volume interface {
	Root() uint64
	Lookup(dir uint64, name string) (cow.Attr, error)
	Forget(ino, n uint64)
	Getattr(ino uint64) (cow.Attr, error)
	Setattr(c cow.Caller, ino uint64, in cow.SetAttr) (cow.Attr, error)
	Readlink(ino uint64) (string, error)
	Statfs() (cow.Statfs, error)
	Path(ino uint64) (string, error)

	Create(c cow.Caller, dir uint64, name string, flags, mode uint32) (cow.Attr, error)
	Tmpfile(c cow.Caller, dir uint64, flags, mode uint32) (cow.Attr, error)
	Mkdir(c cow.Caller, dir uint64, name string, mode uint32) (cow.Attr, error)
	Mknod(c cow.Caller, dir uint64, name string, mode uint32, rdev uint64) (cow.Attr, error)
	Symlink(c cow.Caller, dir uint64, name, target string) (cow.Attr, error)
	Link(c cow.Caller, ino, dir uint64, name string) (cow.Attr, error)
	Unlink(c cow.Caller, dir uint64, name string) (backing.Removal, error)
	Rmdir(c cow.Caller, dir uint64, name string) (backing.Removal, error)
	Rename(c cow.Caller, olddir uint64, oldname string, newdir uint64, newname string, flags uint32) (backing.Moved, error)

	OpenFile(ino uint64, write bool) error
	Release(ino uint64, write bool)
	Writers(ino uint64) int
	Writable() []uint64
	Read(ino uint64, p []byte, off int64) (int, error)
	Write(ino uint64, p []byte, off int64, fl cow.WriteFlags) (int, error)
	Fallocate(c cow.Caller, ino uint64, mode uint32, off, n int64) error
	CopyRange(src uint64, soff int64, dst uint64, doff int64, n int) (int, error)
	Seek(ino uint64, off int64, whence int) (int64, error)
	Allocated(ino uint64, off int64) (bool, error)
	Fsync(ino uint64, datasync bool) error
	StartSync(ino uint64) (wait func() error, err error)
	FsyncDir(ino uint64, datasync bool) error

	Getxattr(ino uint64, name string, dst []byte) (int, error)
	Listxattr(ino uint64, dst []byte) (int, error)
	Setxattr(c cow.Caller, ino uint64, name string, val []byte, flags int) error
	Removexattr(c cow.Caller, ino uint64, name string) error

	OpenDir(dir uint64) (*backing.DirStream, error)
}

var _ Volume = (*cow.Volume)(nil)

// Browser serves the snapshots' tree: every request for a node id with bit 63 set.
type Browser interface {
	fuse.RawFileSystem
	// Root answers a look-up of the directory that holds all snapshots.
	Root(out *fuse.EntryOut) fuse.Status
}
