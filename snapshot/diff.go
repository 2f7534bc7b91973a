package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"graphvol/snapshot/tree"
)

// ChangeKind tells what happened to a path between two snapshots.
type ChangeKind string

// Kinds of changes.
const (
	Added    ChangeKind = "added"
	Removed  ChangeKind = "removed"
	Renamed  ChangeKind = "renamed"  // the same inode under another name; its content may have changed too
	Modified ChangeKind = "modified" // the same inode under the same name
)

// Range is a part of a file, in bytes.
type Range struct {
	Off, Len int64
}

// Change is one difference between snapshots a and b.
type Change struct {
	Kind    ChangeKind
	Path    string // in b; of a removed one, in a; relative to the volume's root, which is "."
	OldPath string // in a; renamed ones only
	Ino     uint64
	Type    uint8 // DT_*, as in tree.Dirent
	Link    bool  // one of several names came or went; the file itself is in both snapshots
	Content bool  // the bytes differ
	Attr    bool  // owner, permissions, extended attributes, link target or (of what isn't a directory) modification time differ
	Bytes   int64 // length of all ranges that differ
	Ranges  []Range
}

// DiffOptions say how much Diff tells.
type DiffOptions struct {
	Ranges bool // fill in Change.Ranges
}

// Diff calls yield for every path that differs between a and b, sorted by path; a file with several names whose content or attributes
// differ under one of them, the first that it has in both. It reads directories and block pointers, skips
// what the snapshots share, and never reads data. So it may say too much, never too little: blocks are told apart by
// where they are stored, and a segment that was stored whole again (one in many incremental snapshots) counts as changed
// wherever it moved. Below a renamed directory only what changed itself is reported. What has no name in either snapshot isn't
// reported. An error of yield ends Diff and is returned.
func Diff(ctx context.Context, a, b *Reader, opts DiffOptions, yield func(Change) error) error {
	d := &differ{a: a.view(), b: b.view(), opts: opts, inodes: make(map[uint64]*inodeDiff)}
	changes, err := d.run(ctx)
	if err != nil {
		return fmt.Errorf("compare snapshots: %w", err)
	}
	for _, c := range changes {
		if err := yield(c); err != nil {
			return err
		}
	}
	return nil
}

type differ struct {
	a, b   view
	opts   DiffOptions
	inodes map[uint64]*inodeDiff
	names  int // in all of them
	// Names are only looked up if something needs them.
	aNames, bNames *nameTable
}

// inodeDiff is what differs for an inode number.
type inodeDiff struct {
	recA, recB *tree.Record // nil: not in that snapshot, or equal in both
	gone, come []place      // names in a only, names in b only
	typ        uint8        // as its names say
	content    bool
	attr       bool
	bytes      int64
	ranges     []Range
}

func (d *differ) run(ctx context.Context) ([]Change, error) {
	err := d.a.nodes.Diff(ctx, d.a.root.Inodes, d.b.root.Inodes, func(c tree.Change) error { return d.inode(ctx, c) })
	if err != nil {
		return nil, err
	}
	if len(d.inodes) == 0 {
		return nil, nil
	}
	want := func(ino uint64) bool { return d.inodes[ino] != nil }
	if d.aNames, err = d.a.names(ctx, want); err != nil {
		return nil, err
	}
	if d.bNames, err = d.b.names(ctx, want); err != nil {
		return nil, err
	}
	var out []Change
	for _, ino := range slices.Sorted(maps.Keys(d.inodes)) {
		out = append(out, d.changes(ino, d.inodes[ino])...)
	}
	slices.SortFunc(out, func(x, y Change) int {
		return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Ino, y.Ino))
	})
	return out, nil
}

func (d *differ) at(ino uint64) *inodeDiff {
	id := d.inodes[ino]
	if id == nil {
		id = new(inodeDiff)
		d.inodes[ino] = id
	}
	return id
}

// inode compares the two records of an inode.
func (d *differ) inode(ctx context.Context, c tree.Change) error {
	id := d.at(c.Key)
	var err error
	if id.recA, err = decodeOptional(c.Key, c.Old); err != nil {
		return err
	}
	if id.recB, err = decodeOptional(c.Key, c.New); err != nil {
		return err
	}
	a, b := orEmpty(id.recA), orEmpty(id.recB)
	if err := d.directory(ctx, dirContent(a), dirContent(b), c.Key); err != nil {
		return err
	}
	id.attr = attrDiffer(a, b)
	return d.content(ctx, id, a, b)
}

func decodeOptional(ino uint64, p []byte) (*tree.Record, error) {
	if p == nil {
		return nil, nil
	}
	rec, err := tree.DecodeRecord(ino, p)
	return &rec, err
}

func orEmpty(r *tree.Record) *tree.Record {
	if r == nil {
		return new(tree.Record)
	}
	return r
}

func dirContent(r *tree.Record) tree.Ref {
	if r.IsDir() {
		return r.Content
	}
	return tree.Ref{}
}

func fileContent(r *tree.Record) tree.Ref {
	if r.IsRegular() {
		return r.Content
	}
	return tree.Ref{}
}

// sameInode tells whether a number stands for the same file in both.
func sameInode(a, b *tree.Record) bool {
	return a != nil && b != nil && a.Gen == b.Gen && a.Mode&tree.ModeType == b.Mode&tree.ModeType
}

func attrDiffer(a, b *tree.Record) bool {
	mtime := a.Mtime != b.Mtime && !b.IsDir() // a directory's says only that names changed, which is reported as such
	return mtime || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Rdev != b.Rdev || a.Target != b.Target ||
		a.XattrBytes != b.XattrBytes || !slices.Equal(a.XattrChunks, b.XattrChunks) ||
		len(a.Xattrs) != len(b.Xattrs) || len(a.Xattrs) > 0 && !reflect.DeepEqual(a.Xattrs, b.Xattrs)
}

// directory notes the names that came and went.
func (d *differ) directory(ctx context.Context, a, b tree.Ref, dir uint64) error {
	return d.a.nodes.Diff(ctx, a, b, func(c tree.Change) error {
		for _, side := range []struct {
			value []byte
			list  func(*inodeDiff) *[]place
		}{
			{c.Old, func(i *inodeDiff) *[]place { return &i.gone }},
			{c.New, func(i *inodeDiff) *[]place { return &i.come }},
		} {
			if side.value == nil {
				continue
			}
			e, err := tree.DecodeDirent(tree.Entry{Key: c.Key, Name: c.Name, Value: side.value})
			if err != nil {
				return err
			}
			id := d.at(e.Ino)
			id.typ = e.Type
			list := side.list(id)
			*list = append(*list, place{dir, e.Name})
			if d.names++; tooManyNames(d.names, len(d.inodes)) {
				return ErrTooManyNames
			}
		}
		return nil
	})
}

// content compares block pointers.
func (d *differ) content(ctx context.Context, id *inodeDiff, a, b *tree.Record) error {
	id.content = a.IsRegular() && b.IsRegular() && a.Size != b.Size
	size := max(a.Size, b.Size)
	err := d.a.nodes.Diff(ctx, fileContent(a), fileContent(b), func(c tree.Change) error {
		segA, err := decodeSegment(c.Old)
		if err != nil {
			return err
		}
		segB, err := decodeSegment(c.New)
		if err != nil {
			return err
		}
		for first := 0; first < SegmentBlocks; first++ {
			if segA[first] == segB[first] {
				continue
			}
			id.add(int64(c.Key)*SegmentSize+int64(first)*BlockSize, BlockSize, size)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if lo, hi := min(a.Size, b.Size), size; a.IsRegular() && b.IsRegular() && lo < hi {
		id.addTail(lo, hi)
	}
	id.content = id.content || id.bytes > 0
	if !d.opts.Ranges {
		id.ranges = nil
	}
	return nil
}

// blockAt says where a block is stored; the zero value is a hole.
type blockAt struct {
	id    [32]byte
	block uint8
}

func decodeSegment(p []byte) (at [SegmentBlocks]blockAt, err error) {
	if p == nil {
		return at, nil
	}
	seg, err := tree.DecodeSegment(p)
	for _, e := range seg.Extents {
		for i := range e.Blocks {
			at[e.First+i] = blockAt{e.Chunk, e.ChunkFirst + i}
		}
	}
	return at, err
}

// add adds a range that lies behind all added before, cut at size.
func (i *inodeDiff) add(off, n, size int64) {
	if n = min(n, size-off); n <= 0 {
		return
	}
	i.bytes += n
	if k := len(i.ranges); k > 0 && i.ranges[k-1].Off+i.ranges[k-1].Len == off {
		i.ranges[k-1].Len += n
		return
	}
	i.ranges = append(i.ranges, Range{off, n})
}

// addTail makes all between the two sizes differ: it is in one of the files only.
func (i *inodeDiff) addTail(lo, hi int64) {
	for k, r := range i.ranges {
		if r.Off+r.Len > lo {
			// From here on all ranges touch the tail.
			for _, r := range i.ranges[k:] {
				i.bytes -= r.Len
			}
			lo = min(lo, r.Off)
			i.ranges = i.ranges[:k]
			break
		}
	}
	i.add(lo, hi-lo, hi)
}

// changes turns what differs for an inode number into what differs for paths.
func (d *differ) changes(ino uint64, id *inodeDiff) []Change {
	slices.SortFunc(id.gone, place.compare)
	slices.SortFunc(id.come, place.compare)
	if (id.recA != nil || id.recB != nil) && !sameInode(id.recA, id.recB) {
		return d.replaced(ino, id)
	}
	moved := min(len(id.gone), len(id.come))
	base := Change{Ino: ino, Type: id.typ, Content: id.content, Attr: id.attr, Bytes: id.bytes, Ranges: id.ranges}
	if id.recB != nil {
		base.Type = tree.TypeOf(id.recB.Mode)
	}
	var out []Change
	for i := range moved {
		c := base
		c.Kind, c.Path, c.OldPath = Renamed, d.bNames.path(id.come[i]), d.aNames.path(id.gone[i])
		out = append(out, c)
	}
	if moved == 0 && (id.content || id.attr) {
		if path, ok := d.keptName(ino, id); ok {
			c := base
			c.Kind, c.Path = Modified, path
			out = append(out, c)
		}
	}
	for _, p := range id.gone[moved:] {
		out = append(out, Change{Kind: Removed, Path: d.aNames.path(p), Ino: ino, Type: base.Type, Link: true})
	}
	for _, p := range id.come[moved:] {
		out = append(out, Change{Kind: Added, Path: d.bNames.path(p), Ino: ino, Type: base.Type, Link: true})
	}
	return out
}

// keptName gives the first name that an inode has in b and didn't get since a.
func (d *differ) keptName(ino uint64, id *inodeDiff) (string, bool) {
	paths := d.bNames.of(ino)
	if len(paths) == 0 {
		return "", false
	}
	come := make(map[string]bool, len(id.come))
	for _, p := range id.come {
		come[d.bNames.path(p)] = true
	}
	for _, path := range paths {
		if !come[path] {
			return path, true
		}
	}
	return paths[len(paths)-1], true
}

// replaced reports an inode that is in one snapshot only, or a number that stands for two different ones.
func (d *differ) replaced(ino uint64, id *inodeDiff) []Change {
	var out []Change
	report := func(kind ChangeKind, rec *tree.Record, names *nameTable) {
		if rec == nil {
			return
		}
		for i, path := range names.of(ino) {
			c := Change{Kind: kind, Path: path, Ino: ino, Type: tree.TypeOf(rec.Mode), Link: i > 0}
			if rec.IsRegular() && i == 0 {
				c.Content, c.Bytes = rec.Size > 0, rec.Size
				if d.opts.Ranges && rec.Size > 0 {
					c.Ranges = []Range{{0, rec.Size}}
				}
			}
			out = append(out, c)
		}
	}
	report(Removed, id.recA, d.aNames)
	report(Added, id.recB, d.bNames)
	return out
}
