package snapshot

import (
	"context"
	"errors"
	"fmt"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// errMadeWrong says that a tree is stored as it was written, and isn't a tree of this format.
var errMadeWrong = errors.New("the snapshot was stored wrong; take another, and report this as a fault of the software")

// verifyWalk is the first walk over one snapshot's tree. What another snapshot has too is skipped.
type verifyWalk struct {
	*verifier
	snap index.Snapshot
	root tree.Root
	dirs map[uint64]bool // that have a name
}

func (v *verifier) walkSnapshot(ctx context.Context, snap index.Snapshot) error {
	w := &verifyWalk{verifier: v, snap: snap, dirs: make(map[uint64]bool)}
	if !v.seen.addNode(snap.Root) {
		return nil
	}
	p, err := v.get(ctx, snap.Root)
	if p == nil {
		return err
	}
	if w.root, err = tree.DecodeRoot(p); err != nil {
		w.wrong("", err)
		return nil
	}
	if w.root.Files != snap.Files || w.root.Bytes != snap.Bytes {
		w.wrong("", fmt.Errorf("it has %d files of %d bytes, the catalogue says %d of %d", w.root.Files, w.root.Bytes, snap.Files, snap.Bytes))
	}
	w.dirs[w.root.Ino] = true
	rec, ok, err := view{nodes: v.nodes, root: w.root}.record(ctx, w.root.Ino)
	if err == nil && (!ok || !rec.IsDir()) {
		w.wrong(".", errors.New("there is no root directory"))
	}
	return w.walk(ctx, w.root.Inodes, w.inode)
}

// get reads a chunk; nil if it is damaged.
func (v *verifier) get(ctx context.Context, id chunkstore.ID) ([]byte, error) {
	p, err := v.repo.store.Get(ctx, id, nil)
	if err == nil {
		v.bytes.Add(int64(len(p)))
		return p, nil
	}
	if ctx.Err() == nil {
		v.bad.add(id, err)
	}
	return nil, ctx.Err()
}

// wrong reports what isn't damage but was never right.
func (w *verifyWalk) wrong(path string, err error) {
	w.report(Problem{Snapshot: w.snap.Name, Path: path, Err: fmt.Errorf("%w: %w", err, errMadeWrong)})
}

// walk calls leaf for the entries of a map that weren't seen before, as far as its nodes can be read.
func (w *verifyWalk) walk(ctx context.Context, ref tree.Ref, leaf func(context.Context, tree.Entry) error) error {
	if ref.Count == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	stored := len(ref.Inline) == 0
	if stored && !w.seen.addNode(ref.ID) {
		return nil
	}
	entries, children, err := w.nodes.Open(ctx, ref)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case stored:
			w.bad.add(ref.ID, err)
		default:
			w.wrong("", err)
		}
		return nil
	}
	for _, e := range entries {
		if err := leaf(ctx, e); err != nil {
			return err
		}
	}
	for _, c := range children {
		if err := w.walk(ctx, c, leaf); err != nil {
			return err
		}
	}
	return nil
}

func (w *verifyWalk) inode(ctx context.Context, e tree.Entry) error {
	rec, err := tree.DecodeRecord(e.Key, e.Value)
	if err != nil {
		w.wrong("", err)
		return nil
	}
	if err := w.xattrs(ctx, &rec); err != nil {
		return err
	}
	switch {
	case rec.IsRegular():
		return w.walk(ctx, rec.Content, func(_ context.Context, e tree.Entry) error {
			w.segment(e, rec.Ino)
			return nil
		})
	case rec.IsDir():
		return w.walk(ctx, rec.Content, func(ctx context.Context, e tree.Entry) error { return w.dirent(ctx, e, rec.Ino) })
	}
	return nil
}

// xattrs reads extended attributes that lie apart; their chunks count as nodes, which aren't read again.
func (w *verifyWalk) xattrs(ctx context.Context, rec *tree.Record) error {
	isNew := false
	for _, id := range rec.XattrChunks {
		isNew = w.seen.addNode(id) || isNew
	}
	if !isNew {
		return nil
	}
	err := w.nodes.EachXattr(ctx, rec, func(tree.Xattr) error { return nil })
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	whole := true
	for _, id := range rec.XattrChunks {
		p, err := w.get(ctx, id)
		if err != nil {
			return err
		}
		whole = whole && p != nil
	}
	if whole {
		w.wrong("", err)
	}
	return nil
}

func (w *verifyWalk) segment(e tree.Entry, ino uint64) {
	seg, err := tree.DecodeSegment(e.Value)
	if err != nil {
		w.wrong("", fmt.Errorf("inode %d: segment %d: %w", ino, e.Key, err))
		return
	}
	for _, id := range seg.Chunks() {
		need := 0
		for _, x := range seg.Extents {
			if x.Chunk == id {
				need = max(need, (int(x.ChunkFirst)+int(x.Blocks))*BlockSize)
			}
		}
		w.seen.addData(id)
		loc, ok, err := w.repo.db.Locate(id)
		switch {
		case err != nil:
			w.bad.add(id, err)
		case !ok:
			w.bad.add(id, fmt.Errorf("chunk %s: %w", id, chunkstore.ErrNotFound))
		case int(loc.RawLen) < need:
			w.bad.add(id, &chunkstore.CorruptError{Pack: loc.Pack, Offset: loc.Offset, Chunk: id, Reason: "shorter than a segment that refers to it"})
		}
	}
}

func (w *verifyWalk) dirent(ctx context.Context, e tree.Entry, dir uint64) error {
	d, err := tree.DecodeDirent(e)
	if err != nil {
		w.wrong("", fmt.Errorf("directory %d: %w", dir, err))
		return nil
	}
	rec, ok, err := view{nodes: w.nodes, root: w.root}.record(ctx, d.Ino)
	switch {
	case err != nil: // found by the walk over the inodes
		return ctx.Err()
	case !ok:
		w.wrong(d.Name, fmt.Errorf("directory %d names inode %d, which the snapshot doesn't have", dir, d.Ino))
	case tree.TypeOf(rec.Mode) != d.Type:
		w.wrong(d.Name, fmt.Errorf("directory %d says that inode %d is of type %d, it is of type %d", dir, d.Ino, d.Type, tree.TypeOf(rec.Mode)))
	case rec.IsDir() && w.dirs[d.Ino]:
		w.wrong(d.Name, fmt.Errorf("directory %d has two names, one of them in directory %d", d.Ino, dir))
	case rec.IsDir():
		w.dirs[d.Ino] = true
	}
	return nil
}
