package cow

import (
	"context"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/epoch"
)

// since lists the epochs after the newest complete snapshot. Whoever moves an epoch from one list to another puts it into the
// new one first, so that none is missed between the looks: running, unsealed, carried is the order they move in, or back
// from unsealed to unsealed and carried.
func (v *Volume) since() (eps []*epoch.Epoch) {
	eps = append(eps, v.run.Load().ep)
	for _, e := range *v.unsealed.Load() {
		for _, p := range *e.parts.Load() {
			eps = append(eps, p.ep)
		}
	}
	for _, p := range *v.carried.Load() {
		eps = append(eps, p.ep)
	}
	return eps
}

// ReadClean fills p from the live file if everything in the range is unchanged since the barrier of the newest complete
// snapshot, which must be snapshotID; the inode must be the one of generation gen.
func (v *Volume) ReadClean(ctx context.Context, snapshotID string, ino, gen uint64, p []byte, off int64) (bool, error) {
	base := v.base.Load()
	if base == nil || *base != snapshotID || v.scan.active.Load() || !v.clean(ino, off, len(p)) {
		return false, nil
	}
	a, err := v.tree.Stat(ino)
	if err != nil || a.Gen != gen {
		return false, nil // not known to the backing at the moment, or another inode
	}
	if err := readFull(func(p []byte, off int64) (int, error) { return v.tree.ReadAt(ino, p, off) }, p, off); err != nil {
		return false, nil
	}
	// Marks come before changes: no mark now, no change before the read.
	return v.base.Load() == base && v.clean(ino, off, len(p)), ctx.Err()
}

func (v *Volume) clean(ino uint64, off int64, n int) bool {
	v.mu.Lock()
	full := v.mu.full
	v.mu.Unlock()
	for _, e := range *v.unsealed.Load() {
		full = full || e.Full()
	}
	if full {
		return false
	}
	first, blocks := span(off, int64(n))
	for _, ep := range v.since() {
		in := ep.Find(ino)
		if in == nil {
			continue
		}
		if in.HasRemoved() || in.HasFresh() || in.HasContent() {
			return false
		}
		for b := first; b < first+blocks; b++ {
			if in.Dirty(b, 1) {
				return false
			}
		}
	}
	return true
}

// Dirty lists what has changed since the newest complete snapshot, ascending by inode number.
func (v *Volume) Dirty(ctx context.Context, yield func(DirtyFile) bool) error {
	seen := map[*epoch.Epoch]bool{}
	var eps []*epoch.Epoch
	for _, ep := range v.since() {
		if !seen[ep] {
			seen[ep] = true
			eps = append(eps, ep)
		}
	}
	for ins := range dirtyInodes(eps) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !yield(v.dirtyFile(ins)) {
			return nil
		}
	}
	return nil
}

func (v *Volume) dirtyFile(ins []*epoch.Inode) DirtyFile {
	f := DirtyFile{Ino: ins[0].Ino()}
	for _, in := range ins {
		f.Whole = f.Whole || in.HasContent() || in.HasFresh()
	}
	path, _ := v.tree.Path(f.Ino)
	if f.Path = strings.TrimPrefix(path, "/"); path == "/" {
		f.Path = "."
	}
	a, err := v.tree.Stat(f.Ino)
	if err != nil || a.Mode&syscall.S_IFMT != syscall.S_IFREG || a.Nlink == 0 {
		f.Whole = false
		return f
	}
	if f.Whole {
		v.addData(&f, a.Size)
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

// addData adds what of a file is data: holes cost a snapshot nothing.
func (v *Volume) addData(f *DirtyFile, size int64) {
	for off := int64(0); off < size; {
		start, err := v.tree.Seek(f.Ino, off, unix.SEEK_DATA)
		if err != nil {
			return // no data from off on, or the file has gone
		}
		end, err := v.tree.Seek(f.Ino, start, unix.SEEK_HOLE)
		if err != nil {
			end = size
		}
		end = min(end, size)
		if end <= start {
			return
		}
		f.Ranges = append(f.Ranges, DirtyRange{start, end - start})
		f.Bytes += end - start
		off = end
	}
}

// DirtyBytes is about how much has changed since the newest complete snapshot: the dirty blocks of all epochs since, counted
// once an epoch, files that are dirty as a whole at their size as last seen.
func (v *Volume) DirtyBytes() (n int64) {
	for _, ep := range v.since() {
		n += ep.DirtyBytes()
	}
	return n
}

// Epoch is the number of the running epoch.
func (v *Volume) Epoch() uint64 { return v.run.Load().number }

// SetBase says which snapshot is the newest complete one, when a volume has just been opened. Later ones make themselves known by
// Ended.Release.
func (v *Volume) SetBase(snapshotID string) { v.base.Store(&snapshotID) }
