package tree

import (
	"context"
	"fmt"

	"graphvol/chunkstore"
)

// EachXattr calls fn for a record's extended attributes, ascending by name. Those that lie in chunks can be hundreds of
// megabytes, so that only one of the chunks is held in memory. An error of fn ends it and is returned. fn may keep the value only if it
// copies it.
func (n *Nodes) EachXattr(ctx context.Context, r *Record, fn func(Xattr) error) error {
	if len(r.XattrChunks) == 0 {
		for _, x := range r.Xattrs {
			if err := fn(x); err != nil {
				return err
			}
		}
		return nil
	}
	l := xattrList{ctx: ctx, get: n.get, chunks: r.XattrChunks, left: r.XattrBytes}
	count, names, before := l.count(), 0, ""
	for i := uint64(0); i < count && l.d.err == nil; i++ {
		x := l.next(before)
		if names += len(x.Name) + 1; names > maxXattrNames {
			l.d.fail("names of extended attributes of more than %d bytes", maxXattrNames)
		}
		if l.d.err != nil {
			break
		}
		if err := fn(x); err != nil {
			return err
		}
		before = x.Name
	}
	if len(l.chunks) > 0 {
		l.d.fail("extended attributes with something behind them")
	}
	if err := l.d.end(); err != nil {
		return fmt.Errorf("inode %d: %w", r.Ino, err)
	}
	return nil
}

// xattrList reads a list of extended attributes piece by piece.
type xattrList struct {
	ctx    context.Context
	get    Getter
	chunks []chunkstore.ID // to read
	left   uint64          // bytes in them
	d      decoder         // of what is read, which lies in text
	text   []byte
	chunk  []byte
}

func (l *xattrList) count() uint64 {
	l.fill(1)
	n := l.d.uvarint()
	if n == 0 || n > l.left+uint64(len(l.d.p)) {
		l.d.fail("list of %d extended attributes", n)
	}
	return n
}

func (l *xattrList) next(before string) Xattr {
	l.fill(maxXattrName + maxXattrValue + 8)
	return l.d.xattr(before)
}

// fill reads on until n bytes are there, or all.
func (l *xattrList) fill(n int) {
	for l.d.err == nil && len(l.d.p) < n && len(l.chunks) > 0 {
		p, err := l.get.Get(l.ctx, l.chunks[0], l.chunk)
		if err != nil {
			l.d.p, l.d.err = nil, fmt.Errorf("read extended attributes: %w", err)
			return
		}
		if want := min(l.left, XattrChunk); uint64(len(p)) != want {
			l.d.fail("extended attributes are %d bytes in a chunk, expected %d", len(p), want)
			return
		}
		l.chunks, l.left, l.chunk = l.chunks[1:], l.left-uint64(len(p)), p
		l.text = append(append(l.text[:0], l.d.p...), p...) // what is left of the text moves to its front
		l.d.p = l.text
	}
}
