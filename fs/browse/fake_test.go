package browse

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// fakeInode is an inode with its content.
type fakeInode struct {
	tree.Inode
	data    []byte
	holes   [][2]int64 // ascending
	entries []tree.Dirent
	broken  bool // reading the content meets damage
}

// fakeReader is a snapshot in memory.
type fakeReader struct {
	inodes map[uint64]*fakeInode
	mu     sync.Mutex
	reads  int
	closed int
}

const fakeRoot = 2

func (r *fakeReader) Root() uint64 { return fakeRoot }

func (r *fakeReader) get(ino uint64) (*fakeInode, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed > 0 {
		panic("read after Close")
	}
	n := r.inodes[ino]
	if n == nil {
		return nil, fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return n, nil
}

func (r *fakeReader) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	n, err := r.get(ino)
	if err != nil {
		return tree.Inode{}, err
	}
	in := n.Inode
	in.Xattrs = nil
	return in, nil
}

func (r *fakeReader) EachXattr(_ context.Context, ino uint64, fn func(tree.Xattr) error) error {
	n, err := r.get(ino)
	if err != nil {
		return err
	}
	for _, x := range n.Xattrs {
		if err := fn(x); err != nil && err != fs.SkipAll {
			return err
		} else if err != nil {
			break
		}
	}
	return nil
}

func (r *fakeReader) Lookup(ctx context.Context, dir uint64, name string) (tree.Dirent, error) {
	list, err := r.ReadDir(ctx, dir)
	for _, e := range list {
		if e.Name == name {
			return e, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return tree.Dirent{}, err
}

func (r *fakeReader) ReadDir(_ context.Context, dir uint64) ([]tree.Dirent, error) {
	n, err := r.get(dir)
	if err != nil {
		return nil, err
	}
	return n.entries, nil
}

func (r *fakeReader) ReadAt(_ context.Context, ino uint64, p []byte, off int64) (int, error) {
	n, err := r.get(ino)
	if err != nil {
		return 0, err
	}
	if n.broken {
		return 0, &chunkstore.CorruptError{Offset: 77, Reason: "the pack is missing", Err: fs.ErrNotExist}
	}
	r.mu.Lock()
	r.reads++
	r.mu.Unlock()
	if off >= int64(len(n.data)) {
		return 0, io.EOF
	}
	k := copy(p, n.data[off:])
	if k < len(p) {
		return k, io.EOF
	}
	return k, nil
}

func (r *fakeReader) NextData(_ context.Context, ino uint64, off int64) (int64, int64, error) {
	n, err := r.get(ino)
	if err != nil {
		return 0, 0, err
	}
	for _, h := range n.holes {
		switch {
		case off < h[0]:
			return off, h[0], nil
		case off < h[1]:
			off = h[1]
		}
	}
	if off >= n.Size {
		return 0, 0, io.EOF
	}
	return off, n.Size, nil
}

func (r *fakeReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
	return nil
}

func (r *fakeReader) add(dir uint64, name string, n *fakeInode) {
	n.Nlink++
	if n.IsDir() {
		n.Nlink++
	}
	if n.IsRegular() {
		n.Size = int64(len(n.data))
		n.Blocks = uint64(len(n.data)+4095) / 4096
		for _, h := range n.holes {
			n.Blocks -= uint64(h[1]-h[0]) / 4096
		}
	}
	r.inodes[n.Ino] = n
	d := r.inodes[dir]
	if d == nil {
		return
	}
	d.entries = append(d.entries, tree.Dirent{Name: name, Ino: n.Ino, Type: tree.TypeOf(n.Mode)})
	slices.SortFunc(d.entries, func(a, b tree.Dirent) int { return strings.Compare(a.Name, b.Name) })
}

var fakeTime = tree.Time{Sec: 1_700_000_000, Nsec: 123_456_789}

func fakeNode(ino uint64, mode uint32) *fakeInode {
	return &fakeInode{Inode: tree.Inode{Ino: ino, Gen: 7, Mode: mode, Mtime: fakeTime, Ctime: fakeTime, Btime: fakeTime}}
}

// newFakeReader makes a small tree: a file, a second link to it, a sparse file, a broken one, a symbolic link, a FIFO, and a full directory.
func newFakeReader(content []byte) *fakeReader {
	r := &fakeReader{inodes: make(map[uint64]*fakeInode)}
	r.add(0, "", fakeNode(fakeRoot, tree.ModeDir|0o755))

	file := fakeNode(10, tree.ModeRegular|0o640)
	file.data, file.UID, file.GID = content, 33, 44
	file.Xattrs = []tree.Xattr{{Name: "trusted.t", Value: []byte("secret")}, {Name: "user.u", Value: []byte("value")}}
	r.add(fakeRoot, "file", file)
	r.add(fakeRoot, "link", file)

	sparse := fakeNode(11, tree.ModeRegular|0o644)
	sparse.data = make([]byte, 1<<20)
	copy(sparse.data[512<<10:], content)
	sparse.holes = [][2]int64{{4096, 512 << 10}, {816 << 10, 1 << 20}}
	r.add(fakeRoot, "sparse", sparse)

	broken := fakeNode(12, tree.ModeRegular|0o644)
	broken.data, broken.broken = content, true
	sub := fakeNode(13, tree.ModeDir|0o700)
	r.add(fakeRoot, "sub", sub)
	r.add(13, "broken", broken)

	target := fakeNode(14, tree.ModeSymlink|0o777)
	target.Target, target.Size = "../file", 7
	r.add(13, "symlink", target)
	r.add(13, "fifo", fakeNode(15, tree.ModeFIFO|0o600))

	r.add(fakeRoot, "many", fakeNode(16, tree.ModeDir|0o755))
	for i := range uint64(700) {
		r.add(16, fmt.Sprintf("entry-%04d", i), fakeNode(1000+i, tree.ModeRegular|0o644))
	}
	return r
}

// fakeCatalogue is a list of snapshots that tests change.
type fakeCatalogue struct {
	mu      sync.Mutex
	snaps   []index.Snapshot
	readers map[string]*fakeReader // by id; made anew when opened after Close
	opens   int
	content []byte
}

func newFakeCatalogue() *fakeCatalogue {
	content := make([]byte, 300<<10+123)
	for i := range content {
		content[i] = byte(i>>8) ^ byte(i*7)
	}
	return &fakeCatalogue{readers: make(map[string]*fakeReader), content: content}
}

func (c *fakeCatalogue) Snapshots() ([]index.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.snaps), nil
}

func (c *fakeCatalogue) Reader(_ context.Context, s index.Snapshot) (Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opens++
	r := newFakeReader(c.content)
	c.readers[s.ID] = r
	return r, nil
}

func (c *fakeCatalogue) add(name string, seq uint64, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snaps = append(c.snaps, index.Snapshot{ID: fmt.Sprintf("id-%d", seq), Name: name, Seq: seq, State: state, Created: time.Unix(int64(seq)*1000, 0), Files: 5, Bytes: 1 << 20})
}

func (c *fakeCatalogue) set(name, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.snaps {
		if c.snaps[i].Name == name {
			c.snaps[i].State = state
		}
	}
}

func (c *fakeCatalogue) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snaps = slices.DeleteFunc(c.snaps, func(s index.Snapshot) bool { return s.Name == name })
}

func (c *fakeCatalogue) reader(id string) *fakeReader {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readers[id]
}
