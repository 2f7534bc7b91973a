package snapshot

import (
	"context"
	"errors"
	"fmt"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// maxBlamed bounds the problems that are reported of one snapshot.
const maxBlamed = 1000

var (
	errUnreadable   = errors.New("restore it from another snapshot, or delete this one")
	errTooManyBlame = errors.New("the rest isn't listed")
)

// blame reports which snapshots need what is damaged, and for which of their files.
func (v *verifier) blame(ctx context.Context, snaps []index.Snapshot) error {
	if len(v.bad.errs) == 0 {
		return nil
	}
	clean := make(map[chunkstore.ID]struct{})
	for _, s := range snaps {
		if v.bad.more > 0 {
			v.report(Problem{Snapshot: s.Name, Err: fmt.Errorf("%d more chunks of the store are damaged or missing than can be listed, perhaps of this snapshot: check the disk", v.bad.more)})
		}
		b := &blamer{verifier: v, snap: s, clean: clean}
		if err := b.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// blamer walks the tree of one snapshot to find the damaged chunks.
type blamer struct {
	*verifier
	snap  index.Snapshot
	clean map[chunkstore.ID]struct{} // nodes with nothing damaged in or below them, of all snapshots
	hits  []hit
}

// hit is damage of one inode.
type hit struct {
	ino    uint64 // 0: of the inode table
	err    error  // the first one
	chunks int
}

func (b *blamer) run(ctx context.Context) error {
	p, err := b.repo.store.Get(ctx, b.snap.Root, nil)
	if err != nil {
		if ctx.Err() == nil {
			b.report(Problem{Snapshot: b.snap.Name, Err: fmt.Errorf("nothing of the snapshot can be read: %w; delete it", err)})
		}
		return ctx.Err()
	}
	root, err := tree.DecodeRoot(p)
	if err != nil {
		return nil // reported by the first walk
	}
	if _, err := b.walk(ctx, root.Inodes, 0, b.inode); err != nil {
		return err
	}
	return b.tell(ctx, root)
}

// walk tells whether something is damaged in a map, or in what its entries refer to.
func (b *blamer) walk(ctx context.Context, ref tree.Ref, ino uint64, leaf func(context.Context, tree.Entry) (bool, error)) (bad bool, err error) {
	if ref.Count == 0 {
		return false, nil
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	stored := len(ref.Inline) == 0
	if _, ok := b.clean[ref.ID]; ok && stored {
		return false, nil
	}
	if stored && b.hit(ino, ref.ID) {
		return true, nil
	}
	entries, children, err := b.nodes.Open(ctx, ref)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		b.note(ino, err) // damaged since the first walk
		return true, nil
	}
	for _, e := range entries {
		hit, err := leaf(ctx, e)
		if err != nil {
			return false, err
		}
		bad = bad || hit
	}
	for _, c := range children {
		hit, err := b.walk(ctx, c, ino, leaf)
		if err != nil {
			return false, err
		}
		bad = bad || hit
	}
	if stored && !bad {
		b.clean[ref.ID] = struct{}{}
	}
	return bad, nil
}

func (b *blamer) inode(ctx context.Context, e tree.Entry) (bad bool, err error) {
	rec, err := tree.DecodeRecord(e.Key, e.Value)
	if err != nil {
		return false, nil // reported by the first walk
	}
	for _, id := range rec.XattrChunks {
		bad = b.hit(rec.Ino, id) || bad
	}
	inContent := false
	switch {
	case rec.IsRegular():
		inContent, err = b.walk(ctx, rec.Content, rec.Ino, func(_ context.Context, e tree.Entry) (bad bool, err error) {
			seg, _ := tree.DecodeSegment(e.Value)
			for _, id := range seg.Chunks() {
				bad = b.hit(rec.Ino, id) || bad
			}
			return bad, nil
		})
	case rec.IsDir():
		inContent, err = b.walk(ctx, rec.Content, rec.Ino, func(context.Context, tree.Entry) (bool, error) { return false, nil })
	}
	return bad || inContent, err
}

// hit notes a chunk if it is damaged.
func (b *blamer) hit(ino uint64, id chunkstore.ID) bool {
	err := b.bad.get(id)
	if err != nil {
		b.note(ino, err)
	}
	return err != nil
}

func (b *blamer) note(ino uint64, err error) {
	if n := len(b.hits); n > 0 && b.hits[n-1].ino == ino {
		b.hits[n-1].chunks++
		return
	}
	b.hits = append(b.hits, hit{ino, err, 1})
}

func (b *blamer) tell(ctx context.Context, root tree.Root) error {
	if len(b.hits) == 0 {
		return nil
	}
	wanted := make(map[uint64]bool)
	for _, h := range b.hits[:min(len(b.hits), maxBlamed)] {
		wanted[h.ino] = true
	}
	names := b.names(ctx, root, wanted)
	for i, h := range b.hits {
		if i == maxBlamed {
			b.report(Problem{Snapshot: b.snap.Name, Err: fmt.Errorf("%d more inodes are damaged: %w", len(b.hits)-i, errTooManyBlame)})
			break
		}
		b.report(b.problem(&h, names))
	}
	return ctx.Err()
}

func (b *blamer) problem(h *hit, names *nameTable) Problem {
	p := Problem{Snapshot: b.snap.Name}
	if h.ino == 0 {
		p.Err = fmt.Errorf("%d pieces of the inode table can't be read, nor the files in them; first: %w; delete the snapshot", h.chunks, h.err)
		return p
	}
	p.Err = fmt.Errorf("%d chunks of inode %d can't be read; first: %w; %w", h.chunks, h.ino, h.err, errUnreadable)
	if paths := names.of(h.ino); len(paths) > 0 {
		p.Path = paths[0]
	}
	return p
}

// names is view.names as far as nothing is damaged.
func (b *blamer) names(ctx context.Context, root tree.Root, wanted map[uint64]bool) *nameTable {
	t := &nameTable{root: root.Ino, places: make(map[uint64][]place)}
	b.entries(ctx, root.Inodes, func(e tree.Entry) {
		rec, err := tree.DecodeRecord(e.Key, e.Value)
		if err != nil || !rec.IsDir() {
			return
		}
		b.entries(ctx, rec.Content, func(e tree.Entry) {
			d, err := tree.DecodeDirent(e)
			if err == nil && (d.Type == tree.TypeOf(tree.ModeDir) || wanted[d.Ino]) {
				t.places[d.Ino] = append(t.places[d.Ino], place{rec.Ino, d.Name})
			}
		})
	})
	return t
}

// entries gives the entries of a map that can be read.
func (b *blamer) entries(ctx context.Context, ref tree.Ref, fn func(tree.Entry)) {
	if ctx.Err() != nil || len(ref.Inline) == 0 && b.bad.get(ref.ID) != nil {
		return
	}
	entries, children, err := b.nodes.Open(ctx, ref)
	if err != nil {
		return
	}
	for _, e := range entries {
		fn(e)
	}
	for _, c := range children {
		b.entries(ctx, c, fn)
	}
}
