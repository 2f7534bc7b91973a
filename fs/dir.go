package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
)

// dirTable holds the open directories by handle.
type dirTable struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]*backing.DirStream
}

func (t *dirTable) add(d *backing.DirStream) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	for t.open[t.next] != nil {
		t.next++
	}
	t.open[t.next] = d
	return t.next
}

func (t *dirTable) get(fh uint64) *backing.DirStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[fh]
}

// take returns and drops a stream, or nil.
func (t *dirTable) take(fh uint64) *backing.DirStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.open[fh]
	delete(t.open, fh)
	return d
}

func (t *dirTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for fh, d := range t.open {
		d.Close()
		delete(t.open, fh)
	}
}

// OpenDir opens a directory for listing. The kernel keeps the list until the directory changes.
func (s *Server) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.OpenDir(c, in, out)
	}
	ino := s.ino(in.NodeId)
	d, err := s.vol.OpenDir(ino)
	if err != nil {
		return s.status(err)
	}
	// It counts as an open file does, so that a removed directory stays reachable if another server takes over.
	if err := s.vol.OpenFile(ino, false); err != nil {
		d.Close()
		return s.status(err)
	}
	out.Fh, out.OpenFlags = s.dirs.add(d), fuse.FOPEN_CACHE_DIR|fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// ReleaseDir closes a directory.
func (s *Server) ReleaseDir(in *fuse.ReleaseIn) {
	if b := s.snap(in.NodeId); b != nil {
		b.ReleaseDir(in)
		return
	}
	s.vol.Release(s.ino(in.NodeId), false)
	if d := s.dirs.take(in.Fh); d != nil {
		d.Close()
	}
}

// FsyncDir makes a directory's entries durable.
func (s *Server) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.FsyncDir(c, in)
	}
	return s.status(s.vol.FsyncDir(s.ino(in.NodeId), in.FsyncFlags&1 != 0))
}

// stream gives the directory's stream, or a passing one if this process doesn't know the handle: positions are the same in all.
func (s *Server) stream(in *fuse.ReadIn) (d *backing.DirStream, done func(), err error) {
	if d = s.dirs.get(in.Fh); d != nil {
		return d, func() {}, nil
	}
	if d, err = s.vol.OpenDir(s.ino(in.NodeId)); err != nil {
		return nil, nil, err
	}
	return d, func() { d.Close() }, nil
}

// ReadDir lists a directory.
func (s *Server) ReadDir(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.ReadDir(c, in, out)
	}
	return s.list(in, func(e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists a directory with the attributes of its entries; each of them is a look-up.
func (s *Server) ReadDirPlus(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if b := s.snap(in.NodeId); b != nil {
		return b.ReadDirPlus(c, in, out)
	}
	dir := s.ino(in.NodeId)
	return s.list(in, func(e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		// An entry that can't be looked up is listed without attributes.
		if a, err := s.vol.Lookup(dir, e.Name); err == nil && s.entry(entry, &a).Ok() {
			out.FixMode(a.Mode)
		} else {
			*entry = fuse.EntryOut{}
		}
		return true
	})
}

func (s *Server) list(in *fuse.ReadIn, add func(fuse.DirEntry) bool) fuse.Status {
	d, done, err := s.stream(in)
	if err != nil {
		return s.status(err)
	}
	defer done()
	err = d.ReadAt(int64(in.Offset), func(e backing.Dirent) bool {
		if e.Name == ".." && in.NodeId == rootID {
			e.Ino = s.root // what is above isn't part of the volume
		}
		return add(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Type & unix.S_IFMT, Off: uint64(e.Off)})
	})
	return s.status(err)
}
