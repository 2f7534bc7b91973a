package backing

import (
	"os"
	"syscall"
)

type Tree struct{}
type DirStream struct{}

func Open(cfg Config) (*Tree, error)                                   { return nil, syscall.ENOSYS }
func (t *Tree) Close() error                                           { return nil }
func (t *Tree) Root() uint64                                           { return 0 }
func (t *Tree) Dev() uint64                                            { return 0 }
func (t *Tree) Lookup(dir uint64, name string) (Attr, error)           { return Attr{}, syscall.ENOSYS }
func (t *Tree) Forget(ino, n uint64)                                   {}
func (t *Tree) Stat(ino uint64) (Attr, error)                          { return Attr{}, syscall.ENOSYS }
func (t *Tree) StatName(dir uint64, name string) (Attr, error)         { return Attr{}, syscall.ENOSYS }
func (t *Tree) Setattr(c Caller, ino uint64, in SetAttr) (Attr, error) { return Attr{}, syscall.ENOSYS }
func (t *Tree) Readlink(ino uint64) (string, error)                    { return "", syscall.ENOSYS }
func (t *Tree) Statfs() (Statfs, error)                                { return Statfs{}, syscall.ENOSYS }

// Getxattr: like getxattr(2): with an empty dst it returns the size; ERANGE if dst is too small.
func (t *Tree) Getxattr(ino uint64, name string, dst []byte) (int, error)     { return 0, syscall.ENOSYS }
func (t *Tree) Listxattr(ino uint64, dst []byte) (int, error)                 { return 0, syscall.ENOSYS }
func (t *Tree) Setxattr(ino uint64, name string, val []byte, flags int) error { return syscall.ENOSYS }
func (t *Tree) Removexattr(ino uint64, name string) error                     { return syscall.ENOSYS }
func (t *Tree) Xattrs(ino uint64) (map[string][]byte, error)                  { return nil, syscall.ENOSYS }

// The creating calls add one kernel reference to what they return, like Lookup.
func (t *Tree) Create(c Caller, dir uint64, name string, flags, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Tmpfile(c Caller, dir uint64, flags, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Mkdir(c Caller, dir uint64, name string, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Mknod(c Caller, dir uint64, name string, mode uint32, rdev uint64) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Symlink(c Caller, dir uint64, name, target string) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Link(c Caller, ino, newdir uint64, newname string) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (t *Tree) Unlink(c Caller, dir uint64, name string) (Removal, error) {
	return Removal{}, syscall.ENOSYS
}
func (t *Tree) Rmdir(c Caller, dir uint64, name string) (Removal, error) {
	return Removal{}, syscall.ENOSYS
}
func (t *Tree) Rename(c Caller, olddir uint64, oldname string, newdir uint64, newname string, flags uint32) (Moved, error) {
	return Moved{}, syscall.ENOSYS
}

func (t *Tree) OpenFile(ino uint64, write bool) error { return syscall.ENOSYS }
func (t *Tree) CloseFile(ino uint64, write bool)      {}
func (t *Tree) WritableOpen() []uint64                { return nil }

func (t *Tree) ReadAt(ino uint64, p []byte, off int64) (int, error)     { return 0, syscall.ENOSYS } // short (also 0, nil) at the end of the file
func (t *Tree) WriteAt(ino uint64, p []byte, off int64) (int, error)    { return 0, syscall.ENOSYS }
func (t *Tree) WritevAt(ino uint64, p [][]byte, off int64) (int, error) { return 0, syscall.ENOSYS }
func (t *Tree) KillPriv(ino uint64) error                               { return syscall.ENOSYS } // before a write, fallocate or copy by a caller without CAP_FSETID
func (t *Tree) Truncate(ino uint64, size int64) error                   { return syscall.ENOSYS }
func (t *Tree) Fallocate(ino uint64, mode uint32, off, n int64) error   { return syscall.ENOSYS }
func (t *Tree) CopyRange(src uint64, soff int64, dst uint64, doff int64, n int) (int, error) {
	return 0, syscall.ENOSYS
}
func (t *Tree) Seek(ino uint64, off int64, whence int) (int64, error) { return 0, syscall.ENOSYS }
func (t *Tree) Fsync(ino uint64, datasync bool) error                 { return syscall.ENOSYS }
func (t *Tree) FsyncDir(ino uint64, datasync bool) error              { return syscall.ENOSYS }

func (t *Tree) ReadDir(dir uint64) ([]Dirent, error)              { return nil, syscall.ENOSYS } // whole, without . and ..
func (t *Tree) OpenDir(dir uint64) (*DirStream, error)            { return nil, syscall.ENOSYS }
func (s *DirStream) ReadAt(off int64, fn func(Dirent) bool) error { return syscall.ENOSYS } // with . and ..; from off (0: start) until fn says false
func (s *DirStream) Close() error                                 { return nil }

func (t *Tree) Path(ino uint64) (string, error)                         { return "", syscall.ENOSYS }
func (t *Tree) Hold(ino uint64) (*os.File, func(), error)               { return nil, nil, syscall.ENOSYS }
func (t *Tree) Locate(ino, parent uint64, name string) error            { return syscall.ENOSYS }
func (t *Tree) Parent(ino uint64) (parent uint64, name string, ok bool) { return 0, "", false }
