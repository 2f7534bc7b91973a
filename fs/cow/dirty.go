package cow

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"graphvol/fs/cow/epoch"
	"graphvol/snapshot"
)

// Dirty lists what has changed since the newest complete snapshot, ascending by inode number. What was made and
// removed since is among it.
func (v *Volume) Dirty(ctx context.Context, yield func(DirtyFile) bool) error {
	eps := v.sinceDown()
	for ins := range dirtyInodes(eps) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !yield(v.dirtyFile(ins, eps)) {
			return nil
		}
	}
	return nil
}

// sinceDown lists the epochs after the newest complete snapshot, each once, the newest first.
func (v *Volume) sinceDown() []*epoch.Epoch {
	eps := v.since()
	slices.SortFunc(eps, func(a, b *epoch.Epoch) int { return cmp.Compare(b.Number(), a.Number()) })
	return slices.Compact(eps)
}

// dirtyFile says what has changed of an inode. eps are descending.
func (v *Volume) dirtyFile(ins []*epoch.Inode, eps []*epoch.Epoch) DirtyFile {
	f := DirtyFile{Ino: ins[0].Ino(), Gen: ins[0].Gen()}
	for _, in := range ins {
		f.Fresh = f.Fresh || in.HasFresh()
		f.Whole = f.Whole || in.HasContent() || in.HasFresh()
		f.AllNames = f.AllNames || in.HasAllNames()
		f.Names = append(f.Names, in.Names()...)
	}
	a, err := v.statLocated(f.Ino, eps)
	if f.Removed = err == nil && a.Nlink == 0 || errors.Is(err, syscall.ENOENT); f.Removed {
		f.Whole = false
		return f
	}
	path, _ := v.tree.Path(f.Ino)
	if f.Path = strings.TrimPrefix(path, "/"); path == "/" {
		f.Path = "."
	}
	if err != nil || a.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return f
	}
	if f.Whole {
		f.Ranges, f.Bytes = v.data(a)
		return f
	}
	for first, n := range runsOf(ins) {
		off := int64(first) << blockShift
		end := min(off+int64(n)<<blockShift, a.Size)
		if end > off {
			f.Ranges = append(f.Ranges, DirtyRange{off, end - off})
			f.Bytes += end - off
		}
	}
	return f
}

// statLocated is the backing's Stat, also of an inode that the backing has forgotten. ENOENT: it has no name any more, or never
// had one. eps are descending.
func (v *Volume) statLocated(ino uint64, eps []*epoch.Epoch) (Attr, error) {
	a, err := v.tree.Stat(ino)
	if !errors.Is(err, syscall.ESTALE) {
		return a, err
	}
	places := func(ino uint64) []place { return hintsIn(eps, ino) }
	if v.locate(ino, places) == nil {
		return v.tree.Stat(ino)
	}
	if removedIn(eps, ino) || len(places(ino)) == 0 {
		err = syscall.ENOENT
	}
	return a, err
}

// Where tells the directory and the name under which a changed directory is known, or one above it; ok is false for the root.
func (v *Volume) Where(dir uint64) (parent uint64, name string, ok bool) {
	if parent, name, ok = v.tree.Parent(dir); ok || dir == v.tree.Root() {
		return parent, name, ok
	}
	for _, p := range hintsIn(v.sinceDown(), dir) {
		return p.parent, p.name, true
	}
	return 0, "", false
}

// data lists what of a file is data: holes cost a snapshot nothing. A small file that takes the space of its size has none: most
// new files are such, and are not opened to be looked at.
func (v *Volume) data(a Attr) ([]DirtyRange, int64) {
	const small = snapshot.SegmentSize
	if a.Size <= small && a.Blocks<<9 >= a.Size {
		return DataRanges(a.Size, func(int64, int) (int64, error) { return 0, syscall.EINVAL })
	}
	return DataRanges(a.Size, func(off int64, whence int) (int64, error) { return v.tree.Seek(a.Ino, off, whence) })
}

// DataRanges lists what of a file of this size is data, and how much it is. seek is lseek(2) for SEEK_DATA and SEEK_HOLE; where it
// can't tell, all is.
func DataRanges(size int64, seek func(off int64, whence int) (int64, error)) (list []DirtyRange, bytes int64) {
	for off := int64(0); off < size; {
		start, end, err := nextData(seek, off, size)
		if err != nil {
			break // no data from off on, or the file has gone
		}
		list = append(list, DirtyRange{start, end - start})
		bytes += end - start
		off = end
	}
	return list, bytes
}
