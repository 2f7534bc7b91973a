package hold

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// flatFS passes one directory of files through: as much of a volume as it takes to die and come back under a writer. Node ids are inode numbers;
// a node it doesn't know is found by its number in the directory, or among the stashed descriptors.
type flatFS struct {
	fuse.RawFileSystem
	s     *Session
	dir   int
	slow  time.Duration
	stuck bool

	mu struct {
		sync.Mutex
		files map[uint64]*os.File
	}
}

func newFlatFS(s *Session) *flatFS {
	f := &flatFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), s: s, dir: int(s.Backing().Fd())}
	f.mu.files = s.Stashed()
	return f
}

func (f *flatFS) open(ino uint64) (*os.File, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if file := f.mu.files[ino]; file != nil {
		return file, fuse.OK
	}
	name, ok := f.nameLocked(ino)
	if !ok {
		return nil, fuse.ENOENT
	}
	fd, err := unix.Openat(f.dir, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	file := os.NewFile(uintptr(fd), name)
	f.mu.files[ino] = file
	return file, fuse.OK
}

func (f *flatFS) nameLocked(ino uint64) (string, bool) {
	entries, _ := os.ReadDir(unixPath(f.dir))
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Sys().(*syscall.Stat_t).Ino == ino {
			return e.Name(), true
		}
	}
	return "", false
}

func (f *flatFS) stat(ino uint64, a *fuse.Attr) fuse.Status {
	var st syscall.Stat_t
	fd := f.dir
	if ino != fuse.FUSE_ROOT_ID {
		file, s := f.open(ino)
		if !s.Ok() {
			return s
		}
		fd = int(file.Fd())
	}
	if err := syscall.Fstat(fd, &st); err != nil {
		return fuse.ToStatus(err)
	}
	a.FromStat(&st)
	if ino == fuse.FUSE_ROOT_ID {
		a.Ino = ino
	}
	return fuse.OK
}

func (f *flatFS) entry(name string, out *fuse.EntryOut) fuse.Status {
	var st unix.Stat_t
	if err := unix.Fstatat(f.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fuse.ToStatus(err)
	}
	out.NodeId, out.Generation = st.Ino, 1
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(time.Hour)
	return f.stat(st.Ino, &out.Attr)
}

func (f *flatFS) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return f.entry(name, out)
}

func (f *flatFS) Forget(uint64, uint64) {}

func (f *flatFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.stat(in.NodeId, &out.Attr)
}

func (f *flatFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	file, s := f.open(in.NodeId)
	if !s.Ok() {
		return s
	}
	if size, ok := in.GetSize(); ok {
		if err := file.Truncate(int64(size)); err != nil {
			return fuse.ToStatus(err)
		}
	}
	return f.stat(in.NodeId, &out.Attr)
}

func (f *flatFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *flatFS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	fd, err := unix.Openat(f.dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, in.Mode)
	if err == unix.EEXIST && Resent(&in.InHeader) {
		return f.entry(name, &out.EntryOut)
	}
	if err != nil {
		return fuse.ToStatus(err)
	}
	unix.Close(fd)
	return f.entry(name, &out.EntryOut)
}

func (f *flatFS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	var st unix.Stat_t
	if err := unix.Fstatat(f.dir, name, &st, 0); err == nil {
		if file, s := f.open(st.Ino); s.Ok() {
			if err := f.s.Stash(st.Ino, file); err != nil {
				return fuse.EIO
			}
		}
	}
	err := unix.Unlinkat(f.dir, name, 0)
	if err == unix.ENOENT && Resent(h) {
		err = nil
	}
	return fuse.ToStatus(err)
}

func (f *flatFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	file, s := f.open(in.NodeId)
	if !s.Ok() {
		return nil, s
	}
	n, err := unix.Pread(int(file.Fd()), buf, int64(in.Offset))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *flatFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	file, s := f.open(in.NodeId)
	if !s.Ok() {
		return 0, s
	}
	n, err := unix.Pwrite(int(file.Fd()), data, int64(in.Offset))
	return uint32(max(n, 0)), fuse.ToStatus(err)
}

func (f *flatFS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	file, s := f.open(in.NodeId)
	if !s.Ok() {
		return s
	}
	time.Sleep(f.slow)
	return fuse.ToStatus(unix.Fdatasync(int(file.Fd())))
}

func (f *flatFS) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, attr string, _ []byte) (uint32, fuse.Status) {
	if attr == AliveAttr && f.stuck {
		select {}
	}
	return 0, fuse.ENODATA
}

func (f *flatFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }
func (f *flatFS) Release(<-chan struct{}, *fuse.ReleaseIn)         {}
func (f *flatFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

func (f *flatFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	entries, err := os.ReadDir(unixPath(f.dir))
	if err != nil {
		return fuse.ToStatus(err)
	}
	for i := int(in.Offset); i < len(entries); i++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: entries[i].Name(), Mode: syscall.S_IFREG, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

func (f *flatFS) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }

// unixPath names an open directory, so that package os can read it.
func unixPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
