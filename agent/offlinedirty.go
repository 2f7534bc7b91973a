package agent

import (
	"context"
	"errors"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/fs/cow"
	"graphvol/fs/cow/epoch"
	"graphvol/index"
	"graphvol/snapshot"
)

// leftChanges are what the last unmount left: the dirty maps in the index. Changes made since, behind graphvol's back, are found
// by the next mount.
type leftChanges struct {
	*service
	dirs map[uint64]string // paths of directories, as far as they are needed
}

var _ changes = (*leftChanges)(nil)

// Dirty implements changes.
func (c *leftChanges) Dirty(ctx context.Context, yield func(cow.DirtyFile) bool) error {
	left, err := epoch.List(filepath.Join(c.state, "epochs"))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return refuse(codes.FailedPrecondition, "the volume was not unmounted in order, so what has changed is known when it is mounted again")
	}
	_, known, err := c.repo.Newest()
	if err != nil {
		return err
	}
	files := make(map[uint64]*cow.DirtyFile)
	if err := c.load(files); err != nil {
		return err
	}
	c.dirs = make(map[uint64]string)
	more := true
	err = c.walk(ctx, func(path string, st *syscall.Stat_t) bool {
		f := files[st.Ino]
		if f == nil {
			if known {
				return true
			}
			f = &cow.DirtyFile{Ino: st.Ino, Whole: true}
		}
		delete(files, st.Ino)
		c.found(f, path, st)
		more = yield(*f)
		return more
	})
	if err != nil {
		return err
	}
	for _, ino := range slices.Sorted(maps.Keys(files)) {
		f := files[ino]
		f.Removed, f.Bytes, f.Ranges = true, 0, nil
		if more = more && yield(*f); !more {
			return nil
		}
	}
	return nil
}

// found completes what is known of a changed inode.
func (c *leftChanges) found(f *cow.DirtyFile, path string, st *syscall.Stat_t) {
	f.Path = path
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		c.dirs[st.Ino] = path
	case syscall.S_IFREG:
		if f.Whole {
			f.Ranges, f.Bytes = c.data(path, st.Size)
		}
	}
}

// data lists what of a file is data, as far as that can be found out.
func (c *leftChanges) data(path string, size int64) ([]cow.DirtyRange, int64) {
	fd, err := unix.Open(filepath.Join(c.facts.Backing, path), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	return cow.DataRanges(size, func(off int64, whence int) (int64, error) {
		if err != nil {
			return 0, unix.EINVAL // nobody can tell
		}
		return unix.Seek(fd, off, whence)
	})
}

// Where implements changes.
func (c *leftChanges) Where(dir uint64) (parent uint64, name string, ok bool) {
	path, ok := c.dirs[dir]
	if !ok || path == "." {
		return 0, "", false
	}
	up := filepath.Dir(path)
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(c.facts.Backing, up), &st); err != nil {
		return 0, "", false
	}
	c.dirs[st.Ino] = up
	return st.Ino, filepath.Base(path), true
}

// load reads all epochs that are not in a complete snapshot.
func (c *leftChanges) load(files map[uint64]*cow.DirtyFile) error {
	db := c.repo.Index()
	epochs, err := db.Epochs()
	if err != nil {
		return err
	}
	sealed, err := db.SealedEpoch()
	if err != nil {
		return err
	}
	for _, n := range epochs {
		if n <= sealed {
			continue // kept for a power cut only
		}
		err := db.LoadEpoch(n, func(d *index.Dirty) error {
			if d.Flags == 0 && d.Blocks == nil && len(d.Names) == 0 {
				return nil // it only tells where a directory is
			}
			f := files[d.Ino]
			if f == nil {
				f = &cow.DirtyFile{Ino: d.Ino}
				files[d.Ino] = f
			}
			f.Gen = d.Gen // of the newest epoch that has it
			f.Fresh = f.Fresh || d.Flags&index.DirtyFresh != 0
			f.AllNames = f.AllNames || d.Flags&index.DirtyNames != 0
			f.Names = append(f.Names, d.Names...)
			f.Whole = f.Whole || d.Flags&(index.DirtyContent|index.DirtyFresh) != 0
			if d.Blocks == nil || f.Whole {
				return nil
			}
			addRanges(f, d)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addRanges adds an epoch's dirty blocks. Those of several epochs may overlap: they are rare, and Bytes then says too much.
func addRanges(f *cow.DirtyFile, d *index.Dirty) {
	const block = snapshot.BlockSize
	it := d.Blocks.Iterator()
	for it.HasNext() {
		off := int64(it.Next()) * block
		f.Bytes += block
		if n := len(f.Ranges); n > 0 && f.Ranges[n-1].Off+f.Ranges[n-1].Len == off {
			f.Ranges[n-1].Len += block
			continue
		}
		f.Ranges = append(f.Ranges, cow.DirtyRange{Off: off, Len: block})
	}
}

// walk goes through the backing directory: paths of the dirty inodes are not recorded.
func (c *leftChanges) walk(ctx context.Context, fn func(path string, st *syscall.Stat_t) bool) error {
	return filepath.WalkDir(c.facts.Backing, func(path string, e iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		rel, err := filepath.Rel(c.facts.Backing, path)
		if err != nil {
			return err
		}
		if !fn(rel, st) {
			return iofs.SkipAll
		}
		return nil
	})
}
