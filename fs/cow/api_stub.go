package cow

import (
	"context"
	"os"
	"syscall"
	"time"

	"graphvol/fs/cow/backing"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

type Volume struct{ tree *backing.Tree }

func Open(ctx context.Context, cfg Config) (*Volume, error) { return nil, syscall.ENOSYS }
func (v *Volume) Close(ctx context.Context) error           { return syscall.ENOSYS }

func (v *Volume) Setattr(c Caller, ino uint64, in SetAttr) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Create(c Caller, dir uint64, name string, flags, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Tmpfile(c Caller, dir uint64, flags, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Mkdir(c Caller, dir uint64, name string, mode uint32) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Mknod(c Caller, dir uint64, name string, mode uint32, rdev uint64) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Symlink(c Caller, dir uint64, name, target string) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Link(c Caller, ino, dir uint64, name string) (Attr, error) {
	return Attr{}, syscall.ENOSYS
}
func (v *Volume) Unlink(c Caller, dir uint64, name string) (backing.Removal, error) {
	return backing.Removal{}, syscall.ENOSYS
}
func (v *Volume) Rmdir(c Caller, dir uint64, name string) (backing.Removal, error) {
	return backing.Removal{}, syscall.ENOSYS
}
func (v *Volume) Rename(c Caller, olddir uint64, oldname string, newdir uint64, newname string, flags uint32) (backing.Moved, error) {
	return backing.Moved{}, syscall.ENOSYS
}
func (v *Volume) Release(ino uint64, write bool) {}
func (v *Volume) Write(ino uint64, p []byte, off int64, fl WriteFlags) (int, error) {
	return 0, syscall.ENOSYS
}
func (v *Volume) Fallocate(c Caller, ino uint64, mode uint32, off, n int64) error {
	return syscall.ENOSYS
}
func (v *Volume) CopyRange(src uint64, soff int64, dst uint64, doff int64, n int) (int, error) {
	return 0, syscall.ENOSYS
}
func (v *Volume) Fsync(ino uint64, datasync bool) error    { return syscall.ENOSYS }
func (v *Volume) FsyncDir(ino uint64, datasync bool) error { return syscall.ENOSYS }
func (v *Volume) Setxattr(c Caller, ino uint64, name string, val []byte, flags int) error {
	return syscall.ENOSYS
}
func (v *Volume) Removexattr(c Caller, ino uint64, name string) error { return syscall.ENOSYS }

func (v *Volume) Barrier(ctx context.Context) (*Ended, time.Duration, error) {
	return nil, 0, syscall.ENOSYS
}

// SetBase says which snapshot is the newest complete one, as of the volume's opening. Later ones are known from (*Ended).SetID.
func (v *Volume) SetBase(snapshotID string)          {}
func (v *Volume) WaitScan(ctx context.Context) error { return nil }
func (v *Volume) Epoch() uint64                      { return 0 }

// DirtyBytes is cheap and approximate: bytes of dirty blocks since the newest complete snapshot.
func (v *Volume) DirtyBytes() int64                                           { return 0 }
func (v *Volume) Dirty(ctx context.Context, yield func(DirtyFile) bool) error { return nil }
func (v *Volume) ReadClean(ctx context.Context, snapshotID string, ino, gen uint64, p []byte, off int64) (bool, error) {
	return false, nil
}

// Ended is an ended epoch.
type Ended struct{}

var _ snapshot.Source = (*Ended)(nil)
var _ snapshot.Live = (*Volume)(nil)

// SetID tells which snapshot this epoch becomes, so that Release(true) makes it the base of ReadClean.
func (e *Ended) SetID(snapshotID string)                    {}
func (e *Ended) Epoch() uint64                              { return 0 }
func (e *Ended) Root() uint64                               { return 0 }
func (e *Ended) Full() bool                                 { return true }
func (e *Ended) Dirty(yield func(snapshot.DirtyInode) bool) {}
func (e *Ended) Inode(ctx context.Context, ino uint64) (tree.Inode, error) {
	return tree.Inode{}, os.ErrNotExist
}
func (e *Ended) Entry(ctx context.Context, dir uint64, name string) (tree.Dirent, bool, error) {
	return tree.Dirent{}, false, nil
}
func (e *Ended) Entries(ctx context.Context, dir uint64) ([]tree.Dirent, error)    { return nil, nil }
func (e *Ended) ReadAt(ctx context.Context, ino uint64, p []byte, off int64) error { return nil }
func (e *Ended) NextData(ctx context.Context, ino uint64, off int64) (int64, int64, error) {
	return 0, 0, nil
}
func (e *Ended) Done(ino uint64)     {}
func (e *Ended) Release(sealed bool) {}

// Err says why the snapshot can't become complete any more (a preimage that couldn't be saved); nil while it can.
func (e *Ended) Err() error { return nil }
