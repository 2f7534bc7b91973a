package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

// Reader reads one snapshot. It is safe for concurrent use. Errors that mean damage wrap chunkstore.ErrCorrupt; the caller, who
// knows the path, logs them. The snapshot's data isn't pruned while it has an open reader.
type Reader struct {
	repo  *Repo
	snap  index.Snapshot
	root  tree.Root
	files fileCache
	once  sync.Once // of Close
}

// Reader opens a complete snapshot for reading; ErrNotComplete if it isn't. Close must follow.
func (r *Repo) Reader(ctx context.Context, snap index.Snapshot) (*Reader, error) {
	if snap.State != index.StateComplete {
		return nil, fmt.Errorf("snapshot %s is %s: %w", snap.Name, snap.State, ErrNotComplete)
	}
	if err := r.pin(snap); err != nil {
		return nil, err
	}
	root, err := r.readRoot(ctx, snap)
	if err != nil {
		r.unpin(snap.ID)
		return nil, err
	}
	return &Reader{repo: r, snap: snap, root: root}, nil
}

// Snapshot is the snapshot that is read.
func (rd *Reader) Snapshot() index.Snapshot { return rd.snap }

// Root is the inode number of the root directory.
func (rd *Reader) Root() uint64 { return rd.root.Ino }

// Stats is the number of regular files, and the sum of their sizes in bytes.
func (rd *Reader) Stats() (files, bytes int64) { return rd.root.Files, rd.root.Bytes }

// Close ends reading. Reads that run go on.
func (rd *Reader) Close() error {
	rd.once.Do(func() { rd.repo.unpin(rd.snap.ID) })
	return nil
}

func (rd *Reader) view() view { return view{nodes: rd.repo.nodes, root: rd.root} }

// Inode gives an inode, without its extended attributes; fs.ErrNotExist if the snapshot has none of that number.
func (rd *Reader) Inode(ctx context.Context, ino uint64) (tree.Inode, error) {
	rec, err := rd.record(ctx, ino)
	if err != nil {
		return tree.Inode{}, err
	}
	in := rec.Inode
	in.Xattrs = nil
	return in, nil
}

// EachXattr calls fn for an inode's extended attributes, ascending by name, one at a time: there may be hundreds of megabytes of them.
// An error of fn ends it and is returned; fs.SkipAll ends it without an error. The values are not to be written to.
func (rd *Reader) EachXattr(ctx context.Context, ino uint64, fn func(tree.Xattr) error) error {
	rec, err := rd.record(ctx, ino)
	if err == nil {
		err = rd.repo.nodes.EachXattr(ctx, rec, fn)
	}
	if err == fs.SkipAll {
		return nil
	}
	return err
}

// record gives an inode's record, which is shared.
func (rd *Reader) record(ctx context.Context, ino uint64) (*tree.Record, error) {
	if rec := rd.files.get(ino); rec != nil {
		return rec, nil
	}
	rec, ok, err := rd.view().record(ctx, ino)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: inode %d: %w", rd.snap.Name, ino, err)
	}
	if !ok {
		return nil, fmt.Errorf("snapshot %s: inode %d: %w", rd.snap.Name, ino, fs.ErrNotExist)
	}
	rd.files.put(&rec)
	return &rec, nil
}

// errNotDir says that names were asked for of something without any.
var errNotDir = errors.New("not a directory")

func (rd *Reader) dir(ctx context.Context, ino uint64) (*tree.Record, error) {
	rec, err := rd.record(ctx, ino)
	if err == nil && !rec.IsDir() {
		err = fmt.Errorf("snapshot %s: inode %d: %w", rd.snap.Name, ino, errNotDir)
	}
	return rec, err
}

// Lookup finds a name in a directory; fs.ErrNotExist if it isn't there.
func (rd *Reader) Lookup(ctx context.Context, dir uint64, name string) (tree.Dirent, error) {
	rec, err := rd.dir(ctx, dir)
	if err != nil {
		return tree.Dirent{}, err
	}
	key := tree.NameKey(name)
	val, ok, err := rd.repo.nodes.Get(ctx, rec.Content, key, name)
	if err != nil {
		return tree.Dirent{}, rd.inodeError(dir, err)
	}
	if !ok {
		return tree.Dirent{}, fmt.Errorf("snapshot %s: %q in directory %d: %w", rd.snap.Name, name, dir, fs.ErrNotExist)
	}
	return tree.DecodeDirent(tree.Entry{Key: key, Name: name, Value: val})
}

func (rd *Reader) inodeError(ino uint64, err error) error {
	return fmt.Errorf("snapshot %s: inode %d: %w", rd.snap.Name, ino, err)
}

// readDirGuess bounds the entries that memory is taken for before any has been seen: a count is only what a record says.
const readDirGuess = 1024

// ReadDir lists a directory, sorted by name, without "." and "..".
func (rd *Reader) ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error) {
	rec, err := rd.dir(ctx, dir)
	if err != nil {
		return nil, err
	}
	list := make([]tree.Dirent, 0, min(rec.Content.Count, readDirGuess))
	err = rd.repo.nodes.Ascend(ctx, rec.Content, 0, func(e tree.Entry) error {
		d, err := tree.DecodeDirent(e)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, rd.inodeError(dir, err)
	}
	slices.SortFunc(list, func(a, b tree.Dirent) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// EachInode calls fn for every inode, ascending by number, without extended attributes where they lie apart; fs.SkipAll ends it
// without an error.
func (rd *Reader) EachInode(ctx context.Context, fn func(tree.Inode) error) error {
	return rd.view().eachRecord(ctx, func(rec *tree.Record) error { return fn(rec.Inode) })
}

// Blocks is the space that a file's data takes, in units of 512 bytes.
func (rd *Reader) Blocks(ctx context.Context, ino uint64) (int64, error) {
	rec, err := rd.record(ctx, ino)
	if err != nil {
		return 0, err
	}
	return int64(rec.Blocks) * (BlockSize / 512), nil
}

// Recorded iterates over what the newest complete snapshot says of each inode: the form in which a volume asks what it was when it
// was last recorded.
func (r *Repo) Recorded() Recorded { return Recorded{r} }

// Recorded is the newest complete snapshot as a list of identities.
type Recorded struct{ repo *Repo }

// Each calls fn for every inode, ascending by number; known is false if there is no complete snapshot.
func (c Recorded) Each(ctx context.Context, fn func(ino uint64, id index.Ident) error) (known bool, err error) {
	snap, ok, err := c.repo.Newest()
	if err != nil || !ok {
		return false, err
	}
	rd, err := c.repo.Reader(ctx, snap)
	if err != nil {
		return true, err
	}
	defer rd.Close()
	return true, rd.EachInode(ctx, func(in tree.Inode) error {
		return fn(in.Ino, index.Ident{
			Valid: true, Gen: in.Gen, Size: in.Size,
			CtimeSec: in.Ctime.Sec, CtimeNsec: in.Ctime.Nsec, BtimeSec: in.Btime.Sec, BtimeNsec: in.Btime.Nsec,
		})
	})
}

// fileCacheLimit is the number of inode records that a Reader keeps decoded.
const fileCacheLimit = 1024

// fileCache keeps the records of inodes in use.
type fileCache struct {
	mu sync.RWMutex
	m  map[uint64]*tree.Record
}

func (c *fileCache) get(ino uint64) *tree.Record {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[ino]
}

func (c *fileCache) put(rec *tree.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= fileCacheLimit {
		c.m = make(map[uint64]*tree.Record)
	}
	c.m[rec.Ino] = rec
}
