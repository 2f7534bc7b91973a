package snapshot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// DirTree gives a directory that doesn't change, such as MOUNT/.snapshots/NAME, as something to restore from. Inode numbers stand for
// the names by which they were found first.
func DirTree(root string) (Tree, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	t := &dirTree{root: st.Ino}
	t.mu.paths = map[uint64]string{st.Ino: root}
	return t, nil
}

type dirTree struct {
	root uint64
	mu   struct {
		sync.Mutex
		paths map[uint64]string
	}
}

func (t *dirTree) Root() uint64 { return t.root }

func (t *dirTree) path(ino uint64) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.mu.paths[ino]
	if !ok {
		return "", fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return p, nil
}

// found notes where an inode is.
func (t *dirTree) found(dir, name string, st *unix.Stat_t) tree.Dirent {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.mu.paths[st.Ino]; !ok {
		t.mu.paths[st.Ino] = filepath.Join(dir, name)
	}
	return tree.Dirent{Name: name, Ino: st.Ino, Type: tree.TypeOf(st.Mode)}
}

func (t *dirTree) Lookup(_ context.Context, dir uint64, name string) (tree.Dirent, error) {
	parent, err := t.path(dir)
	if err != nil {
		return tree.Dirent{}, err
	}
	var st unix.Stat_t
	if err := lstat(filepath.Join(parent, name), &st); err != nil {
		return tree.Dirent{}, err
	}
	return t.found(parent, name, &st), nil
}

func (t *dirTree) ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error) {
	parent, err := t.path(dir)
	if err != nil {
		return nil, err
	}
	var list []os.DirEntry
	err = withShortPath(parent, func(p string) (err error) {
		list, err = os.ReadDir(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]tree.Dirent, 0, len(list))
	for _, e := range list {
		d, err := t.Lookup(ctx, dir, e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (t *dirTree) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	p, err := t.path(ino)
	if err != nil {
		return tree.Inode{}, err
	}
	var in tree.Inode
	err = withShortPath(p, func(p string) (err error) {
		in, err = pathInode(p)
		return err
	})
	return in, err
}

func pathInode(path string) (in tree.Inode, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return in, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	in = inodeOf(&st)
	if in.IsSymlink() {
		if in.Target, err = os.Readlink(path); err != nil {
			return in, err
		}
	}
	return in, nil
}

func (t *dirTree) EachXattr(_ context.Context, ino uint64, fn func(tree.Xattr) error) error {
	p, err := t.path(ino)
	if err != nil {
		return err
	}
	return withShortPath(p, func(p string) error { return eachPathXattr(p, fn) })
}

func lstat(path string, st *unix.Stat_t) error {
	return withShortPath(path, func(p string) error {
		if err := unix.Lstat(p, st); err != nil {
			return &os.PathError{Op: "lstat", Path: p, Err: err}
		}
		return nil
	})
}

// inodeOf gives what stat(2) says of an inode.
func inodeOf(st *unix.Stat_t) tree.Inode {
	return tree.Inode{
		Ino: st.Ino, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Rdev: st.Rdev, Size: st.Size,
		Mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}, Ctime: tree.Time{Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)},
	}
}

// eachPathXattr reads the extended attributes of what a path itself names.
func eachPathXattr(path string, fn func(tree.Xattr) error) error {
	names, err := listXattrs(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	slices.Sort(names)
	for _, name := range names {
		val, err := sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
		if err != nil {
			return &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		if err := fn(tree.Xattr{Name: name, Value: val}); err != nil {
			return err
		}
	}
	return nil
}

func (t *dirTree) Open(_ context.Context, ino uint64) (TreeFile, error) {
	p, err := t.path(ino)
	if err != nil {
		return nil, err
	}
	var f *os.File
	err = withShortPath(p, func(p string) (err error) {
		f, err = os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return dirFile{f}, nil
}

type dirFile struct{ f *os.File }

func (d dirFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.f.ReadAt(p, off)
}

func (d dirFile) NextData(_ context.Context, off int64) (start, end int64, err error) {
	return nextData(int(d.f.Fd()), off)
}

func (d dirFile) Close() error { return d.f.Close() }

// nextData is TreeFile.NextData of an open file. It moves the file's position, which nobody may use.
func nextData(fd int, off int64) (start, end int64, err error) {
	if start, err = unix.Seek(fd, off, unix.SEEK_DATA); err == unix.ENXIO {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look for data: %w", err)
	}
	if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
		return 0, 0, fmt.Errorf("look for a hole: %w", err)
	}
	return start, end, nil
}

// listXattrs gives the names in the order of the filesystem; none where it has no extended attributes.
func listXattrs(list func([]byte) (int, error)) ([]string, error) {
	buf, err := sized(list)
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(buf), func(r rune) bool { return r == 0 }), nil
}

// sized calls a function that fills a buffer, or tells the size that it needs if the buffer is empty.
func sized(fn func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := fn(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = fn(buf)
		if err == unix.ERANGE {
			continue // it has grown in between
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
