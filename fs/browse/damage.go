package browse

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/snapshot"
)

// maxTold bounds what is remembered of damage that was logged; after that many different ones the log has said enough, and starts again.
const maxTold = 4096

// failed turns an error into a status, and logs what isn't the caller's business: damage and failing storage. v may be nil.
func (f *FS) failed(v *volume, ino uint64, err error) fuse.Status {
	switch {
	case errors.Is(err, fs.ErrNotExist) && !snapshot.Damaged(err):
		return fuse.ENOENT
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	case errors.Is(err, ErrInoTooLarge):
		return fuse.Status(syscall.EOVERFLOW)
	case errors.Is(err, syscall.ENOTDIR):
		return fuse.ENOTDIR
	case errors.Is(err, syscall.EISDIR):
		return fuse.EISDIR
	}
	if f.alone != nil && f.alone.away(err) {
		return fuse.EIO
	}
	name := ""
	if v != nil {
		name = v.snap.Name
	}
	if f.first(sha256.Sum256([]byte(name + "\x00" + strconv.FormatUint(ino, 10) + "\x00" + err.Error()))) {
		f.log.Error("a snapshot can't be read: run graphvol verify --read-data", "snapshot", name, "path", f.pathOf(v, ino), "inode", ino, "err", err)
	}
	return fuse.EIO
}

// first reports whether something is to be logged for the first time: a reader may try the same damaged block for ever.
func (f *FS) first(key [sha256.Size]byte) bool {
	f.told.mu.Lock()
	defer f.told.mu.Unlock()
	if f.told.mu.seen[key] {
		return false
	}
	if len(f.told.mu.seen) >= maxTold {
		clear(f.told.mu.seen)
	}
	f.told.mu.seen[key] = true
	return true
}

// searchTime bounds the search for a path.
const searchTime = 3 * time.Second

// pathOf finds a path of an inode in a snapshot, "" if it takes too long. Snapshots don't store it, and it is wanted only when something is broken.
func (f *FS) pathOf(v *volume, ino uint64) string {
	if v == nil || v.rd == nil || ino == 0 {
		return ""
	}
	p, _, _ := search(v.rd, ino)
	return p
}

func findParent(rd Reader, ino uint64) (uint64, bool) {
	_, parent, ok := search(rd, ino)
	return parent, ok
}

// search walks a snapshot's directories for an inode, and returns a path of it from the snapshot's root, and the directory.
func search(rd Reader, ino uint64) (string, uint64, bool) {
	ctx, cancel := context.WithTimeout(background(), searchTime)
	defer cancel()
	if ino == rd.Root() {
		return "/", ino, true
	}
	todo := []*searched{{name: "/", ino: rd.Root()}}
	met := map[uint64]bool{rd.Root(): true} // a forged snapshot has circles
	for len(todo) > 0 && ctx.Err() == nil {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		list, err := rd.ReadDir(ctx, d.ino)
		if err != nil {
			continue // what is broken may be elsewhere
		}
		for _, e := range list {
			if e.Ino == ino {
				return (&searched{d, e.Name, e.Ino}).path(), d.ino, true
			}
			if e.Type == syscall.DT_DIR && !met[e.Ino] {
				met[e.Ino] = true
				todo = append(todo, &searched{d, e.Name, e.Ino})
			}
		}
	}
	return "", 0, false
}

// searched is a directory that search has come to. Its path is made only when it is wanted.
type searched struct {
	up   *searched // nil: it is the root
	name string
	ino  uint64
}

// maxToldPath bounds what is logged of a path, its end.
const maxToldPath = 64 << 10

func (s *searched) path() string {
	var elems []string
	n := 0
	for ; s != nil && n < maxToldPath; s = s.up {
		elems, n = append(elems, s.name), n+len(s.name)+1
	}
	if s != nil {
		elems = append(elems, "[...]")
	}
	slices.Reverse(elems)
	return path.Join(elems...)
}
