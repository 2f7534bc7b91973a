package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"graphvol/chunkstore"
)

// TestSharedNodesAreRefused: whoever hands over a store can compute hashes, and so write a map of eleven small nodes that is one node 64
// times in each branch: 2^64 entries for whoever walks it.
func TestSharedNodesAreRefused(t *testing.T) {
	m := newMemory()
	ref := laughs(t, m)
	nodes := NewNodes(m, 1<<20)
	small := build(t, nodes, m, []Entry{{Key: 5, Value: []byte("x")}})
	steps := 0
	count := func(Entry) error {
		if steps++; steps > 1000 {
			t.Fatal("the same node is walked again and again")
		}
		return nil
	}
	ctx := t.Context()
	for name, walk := range map[string]func(context.Context) error{
		"Ascend": func(ctx context.Context) error { return nodes.Ascend(ctx, ref, 0, count) },
		"Reach": func(ctx context.Context) error {
			return nodes.Reach(ctx, ref, func(chunkstore.ID) bool { return true }, count)
		},
		"Diff": func(ctx context.Context) error {
			return nodes.Diff(ctx, small, ref, func(c Change) error { return count(Entry{Key: c.Key}) })
		},
		"Get": func(ctx context.Context) error {
			_, _, err := nodes.Get(ctx, ref, 1<<62, "")
			return err
		},
		"Apply": func(ctx context.Context) error {
			_, err := nodes.Apply(ctx, m, ref, []Edit{{Entry: Entry{Key: 1 << 62, Value: []byte("y")}}})
			return err
		},
	} {
		steps = 0
		if err := walk(ctx); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %v after %d entries, want ErrCorrupt", name, err, steps)
		}
	}
}

// laughs makes a map with one node a level.
func laughs(t *testing.T, m *memory) Ref {
	t.Helper()
	var es []Entry
	for k := range uint64(MaxLeaf) {
		es = append(es, Entry{Key: k, Value: make([]byte, 16)})
	}
	p := encodeLeaf(nil, es)
	count := uint64(MaxLeaf)
	for level := 1; level <= maxLevel; level++ {
		id, err := m.Put(p)
		if err != nil {
			t.Fatal(err)
		}
		width := 64
		if level == maxLevel {
			width = 8 // so that the count fits
		}
		children := make([]Ref, width)
		for i := range children {
			children[i] = Ref{Count: count, ID: id}
		}
		count *= uint64(width)
		p = encodeBranch(nil, level, 0, uint64(1)<<width-1, children)
	}
	id, err := m.Put(p)
	if err != nil {
		t.Fatal(err)
	}
	return Ref{Count: count, ID: id}
}

// TestBranchBelowItself: a branch may have children of lower levels only, however deep the chain of chunks is.
func TestBranchBelowItself(t *testing.T) {
	m := newMemory()
	leaf := Ref{Count: 1, Inline: encodeLeaf(nil, []Entry{{Key: 0, Value: []byte("v")}})}
	last := Ref{Count: 1, Inline: encodeLeaf(nil, []Entry{{Key: 1, Value: []byte("v")}})}
	ref := leaf
	for range 1000 {
		id, err := m.Put(encodeBranch(nil, 0, 0, 3, []Ref{ref, last}))
		if err != nil {
			t.Fatal(err)
		}
		ref = Ref{Count: ref.Count + 1, ID: id}
	}
	err := NewNodes(m, 1<<20).Ascend(t.Context(), ref, 0, func(Entry) error { return nil })
	if !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

// TestXattrBombs: one chunk that a record names thousands of times isn't read thousands of times.
func TestXattrBombs(t *testing.T) {
	m := newMemory()
	zeros, err := m.Put(make([]byte, XattrChunk))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := EncodeInode(m, &Inode{Ino: 7, Mode: ModeRegular})
	if err != nil {
		t.Fatal(err)
	}
	const chunks = 20_000 // 10 GB
	rec = rec[:len(rec)-2]
	rec = append(rec, xattrChunks)
	rec = binary.AppendUvarint(rec, chunks*XattrChunk)
	for range chunks {
		rec = append(rec, zeros[:]...)
	}
	rec = append(rec, 0)
	if r, err := DecodeRecord(7, rec); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("%d bytes of extended attributes: %v", r.XattrBytes, err)
	}
}

// TestImpossibleFiles: what no file of Linux can be isn't decoded.
func TestImpossibleFiles(t *testing.T) {
	long := strings.Repeat("n", 4096)
	m := newMemory()
	for what, in := range map[string]Inode{
		"no type":             {Mode: 0o644},
		"unknown type":        {Mode: 0o170000},
		"bits above the mode": {Mode: 1<<31 | ModeRegular},
		"no target":           {Mode: ModeSymlink | 0o777},
		"NUL in a target":     {Mode: ModeSymlink | 0o777, Target: "a\x00b"},
		"long target":         {Mode: ModeSymlink | 0o777, Target: long},
		"xattr without name":  {Mode: ModeRegular, Xattrs: []Xattr{{"", nil}}},
		"NUL in an xattr":     {Mode: ModeRegular, Xattrs: []Xattr{{"user.\x00", nil}}},
		"long xattr name":     {Mode: ModeRegular, Xattrs: []Xattr{{"user." + long[:251], nil}}},
	} {
		p, err := EncodeInode(m, &in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRecord(1, p); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", long} {
		if _, err := DecodeDirent(DirEntry(Dirent{Name: name})); !errors.Is(err, chunkstore.ErrCorrupt) || len(err.Error()) > 300 {
			t.Errorf("%.10q: %.300v", name, err)
		}
	}
	if _, err := DecodeDirent(DirEntry(Dirent{Name: long[1:]})); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

// TestXattrsAreReadOneByOne: who looks for the first of hundreds of megabytes reads one chunk; none is longer than Linux has them, nor
// are their names together.
func TestXattrsAreReadOneByOne(t *testing.T) {
	m := newMemory()
	nodes := NewNodes(m, 1<<20)
	record := func(xattrs ...Xattr) *Record {
		p, err := EncodeInode(m, &Inode{Mode: ModeRegular, Xattrs: xattrs})
		if err != nil {
			t.Fatal(err)
		}
		rec, err := DecodeRecord(1, p)
		if err != nil {
			t.Fatal(err)
		}
		return &rec
	}
	var many, names []Xattr
	for i := range 1000 {
		many = append(many, Xattr{fmt.Sprintf("user.%04d", i), make([]byte, 64<<10)})
		names = append(names, Xattr{fmt.Sprintf("user.%0200d", i), nil})
	}
	seen := 0
	err := nodes.EachXattr(t.Context(), record(many...), func(Xattr) error {
		seen++
		return fs.SkipAll
	})
	if err != fs.SkipAll || seen != 1 || m.gets != 1 {
		t.Errorf("%v after %d of %d, %d chunks were read", err, seen, len(many), m.gets)
	}
	ignore := func(Xattr) error { return nil }
	for what, list := range map[string][]Xattr{"a value": {{"user.x", make([]byte, 64<<10+1)}}, "names": names} {
		if err := nodes.EachXattr(t.Context(), record(list...), ignore); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s beyond the bound: %v", what, err)
		}
	}
	short := record(many...)
	short.XattrChunks = short.XattrChunks[:len(short.XattrChunks)-1]
	if err := nodes.EachXattr(t.Context(), short, ignore); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("a list without its end: %v", err)
	}
}
