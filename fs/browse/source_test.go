package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

// dirSource gives a directory that doesn't change as an epoch in which everything is new.
type dirSource struct {
	root  uint64
	paths map[uint64]string
}

var _ snapshot.Source = (*dirSource)(nil)

func newDirSource(dir string) (*dirSource, error) {
	s := &dirSource{paths: make(map[uint64]string)}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if path == dir {
			s.root = st.Ino
		}
		s.paths[st.Ino] = path
		return nil
	})
	return s, err
}

func (s *dirSource) Epoch() uint64                        { return 1 }
func (s *dirSource) Root() uint64                         { return s.root }
func (s *dirSource) Full() bool                           { return true }
func (s *dirSource) Dirty(func(snapshot.DirtyInode) bool) {}
func (s *dirSource) Done(uint64)                          {}
func (s *dirSource) Release(bool)                         {}
func stamp(t unix.Timespec) tree.Time                     { return tree.Time{Sec: t.Sec, Nsec: uint32(t.Nsec)} }
func (s *dirSource) at(ino uint64, name string) (string, error) {
	p, ok := s.paths[ino]
	if !ok {
		return "", fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return filepath.Join(p, name), nil
}

func (s *dirSource) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	p, err := s.at(ino, "")
	if err != nil {
		return tree.Inode{}, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return tree.Inode{}, err
	}
	in := tree.Inode{Ino: ino, Gen: 1, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Size: st.Size, Mtime: stamp(st.Mtim), Ctime: stamp(st.Ctim), Btime: stamp(st.Ctim)}
	switch {
	case in.IsSymlink():
		in.Target, err = os.Readlink(p)
	case st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK:
		in.Rdev = st.Rdev
	}
	if err != nil {
		return in, err
	}
	in.Xattrs, err = xattrsOf(p)
	return in, err
}

func xattrsOf(path string) ([]tree.Xattr, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var list []tree.Xattr
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return nil, err
		}
		list = append(list, tree.Xattr{Name: name, Value: slices.Clone(buf[:n])})
	}
	return list, nil
}

func (s *dirSource) Entry(_ context.Context, dir uint64, name string) (tree.Dirent, bool, error) {
	p, err := s.at(dir, name)
	if err != nil {
		return tree.Dirent{}, false, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return tree.Dirent{}, false, nil
	}
	return tree.Dirent{Name: name, Ino: st.Ino, Type: tree.TypeOf(st.Mode)}, true, nil
}

func (s *dirSource) Entries(ctx context.Context, dir uint64) ([]tree.Dirent, error) {
	p, err := s.at(dir, "")
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	var out []tree.Dirent
	for _, e := range list {
		d, _, err := s.Entry(ctx, dir, e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (s *dirSource) open(ino uint64) (*os.File, error) {
	p, err := s.at(ino, "")
	if err != nil {
		return nil, err
	}
	return os.Open(p)
}

func (s *dirSource) ReadAt(_ context.Context, ino uint64, p []byte, off int64) error {
	f, err := s.open(ino)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	clear(p[n:])
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

func (s *dirSource) NextData(_ context.Context, ino uint64, off int64) (int64, int64, error) {
	f, err := s.open(ino)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	return start, end, err
}
