package browse

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// Offsets in a directory: 1 after ".", 2 after "..", then entry i of the sorted listing has i+3. A snapshot's listing never changes, so an offset means the same
// to every server. In .snapshots the offset is made of Seq instead, since names come and go.
const firstOffset = 2

// dirTable keeps listings of open directories: reading a large one takes many requests. A handle that is unknown here, or that was another directory's, came from
// an earlier server; its listing is simply made again.
type dirTable struct {
	mu struct {
		sync.Mutex
		last uint64
		open map[uint64]*dir
	}
}

// dir is an open directory.
type dir struct {
	node uint64
	once sync.Once
	list []tree.Dirent
	err  error
}

// OpenDir makes a handle. The kernel keeps what it reads of a snapshot's directory.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == RootID {
		return fuse.OK
	}
	v, _, s := f.acquire(in.NodeId)
	if !s.Ok() {
		return s
	}
	f.release(v)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	f.dirs.mu.Lock()
	defer f.dirs.mu.Unlock()
	f.dirs.mu.last++
	out.Fh = f.dirs.mu.last
	f.dirs.mu.open[out.Fh] = &dir{node: in.NodeId}
	return fuse.OK
}

// ReleaseDir drops the listing.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) {
	f.dirs.mu.Lock()
	defer f.dirs.mu.Unlock()
	if d := f.dirs.mu.open[in.Fh]; d != nil && d.node == in.NodeId {
		delete(f.dirs.mu.open, in.Fh)
	}
}

func (f *FS) listing(v *volume, in *fuse.ReadIn, ino uint64) ([]tree.Dirent, error) {
	f.dirs.mu.Lock()
	d := f.dirs.mu.open[in.Fh]
	f.dirs.mu.Unlock()
	if d == nil || d.node != in.NodeId {
		return v.rd.ReadDir(background(), ino)
	}
	d.once.Do(func() { d.list, d.err = v.rd.ReadDir(background(), ino) })
	return d.list, d.err
}

// adder puts an entry into the answer, with its attributes if v isn't nil and they are wanted; false: it is full.
type adder func(v *volume, e fuse.DirEntry, ino uint64) bool

// ReadDir lists names.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(_ *volume, e fuse.DirEntry, _ uint64) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names with their attributes. An entry whose inode can't be read is listed all the same; looking it up then says why.
func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(v *volume, e fuse.DirEntry, ino uint64) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if v != nil && !f.entry(v, ino, entry).Ok() {
			*entry = fuse.EntryOut{} // no node: the kernel takes the name alone
		}
		return true
	})
}

func (f *FS) readDir(in *fuse.ReadIn, add adder) fuse.Status {
	for off, name := range []string{".", ".."} {
		// The kernel doesn't use their inode numbers.
		e := fuse.DirEntry{Name: name, Ino: in.NodeId, Mode: unix.S_IFDIR, Off: uint64(off + 1)}
		if in.Offset <= uint64(off) && !add(nil, e, 0) {
			return fuse.OK
		}
	}
	if in.NodeId == RootID {
		return f.readRoot(in.Offset, add)
	}
	v, ino, s := f.acquire(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer f.release(v)
	list, err := f.listing(v, in, ino)
	if err != nil {
		return f.failed(v, ino, err)
	}
	for i := max(in.Offset, firstOffset) - firstOffset; i < uint64(len(list)); i++ {
		id, err := NodeID(v.snap.Seq, list[i].Ino)
		if err != nil {
			return f.failed(v, list[i].Ino, err)
		}
		e := fuse.DirEntry{Name: list[i].Name, Ino: id, Mode: uint32(list[i].Type) << 12, Off: i + firstOffset + 1}
		if !add(v, e, list[i].Ino) {
			break
		}
	}
	return fuse.OK
}

// readRoot lists .snapshots in the order of Seq. No attributes are given: a pending snapshot has none yet, and a look-up waits for it.
func (f *FS) readRoot(offset uint64, add adder) fuse.Status {
	snaps, err := f.cat.Snapshots()
	if err != nil {
		return f.failed(nil, 0, err)
	}
	for _, s := range snaps {
		if !visible(s) || s.Seq+firstOffset <= offset {
			continue
		}
		id, err := NodeID(s.Seq, 0)
		if err != nil {
			return f.failed(nil, 0, err)
		}
		if !add(nil, fuse.DirEntry{Name: s.Name, Ino: id, Mode: unix.S_IFDIR, Off: s.Seq + firstOffset}, 0) {
			break
		}
	}
	return fuse.OK
}
