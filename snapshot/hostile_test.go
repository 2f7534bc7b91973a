package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// chunksInMemory is where the trees are that no volume could give.
type chunksInMemory map[chunkstore.ID][]byte

func (m chunksInMemory) Put(p []byte) (chunkstore.ID, error) {
	id := chunkstore.Sum(p)
	m[id] = bytes.Clone(p)
	return id, nil
}

func (m chunksInMemory) Get(_ context.Context, id chunkstore.ID, buf []byte) ([]byte, error) {
	if p, ok := m[id]; ok {
		return append(buf[:0], p...), nil
	}
	return nil, chunkstore.ErrNotFound
}

// forged gives a reader of a snapshot with these inodes, whose content is as they say.
func forged(t *testing.T, m chunksInMemory, inodes ...*tree.Inode) *Reader {
	t.Helper()
	slices.SortFunc(inodes, func(a, b *tree.Inode) int { return cmp.Compare(a.Ino, b.Ino) })
	nodes := tree.NewNodes(m, 1<<20)
	b := nodes.NewBuilder(t.Context(), m)
	for _, in := range inodes {
		rec, err := tree.EncodeInode(m, in)
		if err == nil {
			err = b.Add(tree.Entry{Key: in.Ino, Value: rec})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ref, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return &Reader{repo: &Repo{nodes: nodes, ahead: newReadAhead()}, root: tree.Root{Ino: fakeRoot, Inodes: ref}}
}

func directory(t *testing.T, m chunksInMemory, ino uint64, entries ...tree.Dirent) *tree.Inode {
	t.Helper()
	edits := make([]tree.Edit, 0, len(entries))
	for _, e := range entries {
		edits = append(edits, tree.Edit{Entry: tree.DirEntry(e)})
	}
	slices.SortFunc(edits, tree.Edit.Compare)
	ref, err := tree.NewNodes(m, 1<<20).Apply(t.Context(), m, tree.Ref{}, edits)
	if err != nil {
		t.Fatal(err)
	}
	return &tree.Inode{Ino: ino, Mode: tree.ModeDir | 0o755, Nlink: 2, Content: ref}
}

// TestForgedCount: a record says how many entries its directory has; memory isn't taken on its word.
func TestForgedCount(t *testing.T) {
	m := chunksInMemory{}
	root := directory(t, m, fakeRoot, tree.Dirent{Name: "one", Ino: 5, Type: 8})
	root.Content.Count = 1 << 62
	rd := forged(t, m, root)
	if list, err := rd.ReadDir(t.Context(), fakeRoot); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("%d entries, %v", len(list), err)
	}
	if _, err := rd.Lookup(t.Context(), fakeRoot, "one"); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("look-up: %v", err)
	}
}

// TestForgedCircles: directories that hold themselves, one another, or two names of one; names and types that lie.
func TestForgedCircles(t *testing.T) {
	const dir, other, file = 5, 6, 7
	m := chunksInMemory{}
	rd := forged(t, m,
		directory(t, m, fakeRoot, tree.Dirent{Name: "dir", Ino: dir, Type: 4}, tree.Dirent{Name: "again", Ino: dir, Type: 4},
			tree.Dirent{Name: "root", Ino: fakeRoot, Type: 4}, tree.Dirent{Name: "lies", Ino: file, Type: 4}, tree.Dirent{Name: "gone", Ino: 99, Type: 8}),
		directory(t, m, dir, tree.Dirent{Name: "self", Ino: dir, Type: 4}, tree.Dirent{Name: "other", Ino: other, Type: 4}),
		directory(t, m, other, tree.Dirent{Name: "up", Ino: dir, Type: 4}, tree.Dirent{Name: "file", Ino: file, Type: 8}),
		&tree.Inode{Ino: file, Mode: tree.ModeRegular | 0o644, Nlink: 1, Size: 1<<63 - 1})
	dest := filepath.Join(t.TempDir(), "dest")
	_, err := Restore(t.Context(), rd, RestoreOptions{Dest: dest})
	var failed *RestoreError
	if !errors.As(err, &failed) || failed.Count < 5 {
		t.Errorf("restore: %v", err)
	}
	names, err := rd.view().names(t.Context(), func(uint64) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, ino := range []uint64{fakeRoot, dir, other, file} {
		if paths := names.of(ino); len(paths) == 0 {
			t.Errorf("inode %d has no path", ino)
		}
	}
	empty := forged(t, m, directory(t, m, fakeRoot))
	if err := Diff(t.Context(), empty, rd, DiffOptions{Ranges: true}, func(Change) error { return nil }); err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("diff: %v", err)
	}
	if start, end, err := rd.NextData(t.Context(), file, 0); err == nil {
		t.Errorf("a file without content has data from %d to %d", start, end)
	}
	if n, err := rd.ReadAt(t.Context(), file, make([]byte, 4096), 1<<62); n != 4096 || err != nil {
		t.Errorf("reading a hole far out: %d, %v", n, err)
	}
}

// TestForgedSegments: content at places that no file reaches, and a chunk that is shorter than what refers to it.
func TestForgedSegments(t *testing.T) {
	m := chunksInMemory{}
	short, err := m.Put([]byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	seg := tree.Segment{Extents: []tree.Extent{{Blocks: 32, Chunk: short}}}
	b := tree.NewNodes(m, 1<<20).NewBuilder(t.Context(), m)
	for _, key := range []uint64{0, 1 << 40, 1<<63 - 1, 1<<64 - 1} {
		if err := b.Add(tree.Entry{Key: key, Value: seg.Encode()}); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 4097, 1<<63 - 1} {
		rd := forged(t, m, directory(t, m, fakeRoot), &tree.Inode{Ino: fakeRoot + 1, Mode: tree.ModeRegular, Size: size, Blocks: 1, Content: ref})
		last := int64(-1)
		for off := int64(0); ; {
			start, end, err := rd.NextData(t.Context(), fakeRoot+1, off)
			if err != nil {
				break
			}
			if start < off || end <= start || end > size || end <= last {
				t.Fatalf("size %d: data from %d to %d, asked from %d", size, start, end, off)
			}
			off, last = end, end
		}
	}
}

// TestForgedNodesOfAnotherType: what is named a file but is a directory in the tree doesn't lead out of the destination by way of what
// is there: a symbolic link.
func TestForgedNodesOfAnotherType(t *testing.T) {
	m := chunksInMemory{}
	outside, dest := t.TempDir(), t.TempDir()
	if err := unix.Symlink(outside, filepath.Join(dest, "x")); err != nil {
		t.Fatal(err)
	}
	rd := forged(t, m, directory(t, m, fakeRoot, tree.Dirent{Name: "x", Ino: 5, Type: 4}, tree.Dirent{Name: "y", Ino: 6, Type: 10}),
		directory(t, m, 5, tree.Dirent{Name: "evil", Ino: 7, Type: 1}),
		&tree.Inode{Ino: 6, Mode: tree.ModeSymlink | 0o777, Nlink: 1, Target: outside},
		&tree.Inode{Ino: 7, Mode: tree.ModeFIFO | 0o644, Nlink: 1})
	if _, err := Restore(t.Context(), rd, RestoreOptions{Dest: dest}); err != nil {
		t.Error(err)
	}
	if err := filepath.WalkDir(outside, func(p string, _ fs.DirEntry, err error) error {
		if p != outside {
			t.Errorf("%s is outside of the destination", p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
