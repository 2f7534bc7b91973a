package epoch

import (
	"iter"

	"github.com/RoaringBitmap/roaring/v2"

	"graphvol/index"
)

// Loader is what reads a stored dirty map.
type Loader interface {
	LoadEpoch(epoch uint64, fn func(*index.Dirty) error) error
}

var _ Loader = (*index.DB)(nil)

// FromDirty returns an epoch in memory with the marks of seq.
func FromDirty(n uint64, seq iter.Seq[*index.Dirty]) (*Epoch, error) {
	e := memory(n)
	for d := range seq {
		e.add(d)
	}
	return e, nil
}

// FromIndex returns an epoch in memory with the marks of the stored dirty map n.
func FromIndex(l Loader, n uint64) (*Epoch, error) {
	e := memory(n)
	err := l.LoadEpoch(n, func(d *index.Dirty) error {
		e.add(d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Merge returns an epoch in memory with the marks of several, given in ascending order. What an inode looked like, and that it was removed, counts
// only from the last one that marked it.
func Merge(n uint64, eps []*Epoch) *Epoch {
	e := memory(n)
	for _, ep := range eps {
		for d := range ep.Encode() {
			e.add(d)
			if d.Flags == 0 && len(d.Names) == 0 && d.Blocks == nil {
				continue // a hint alone
			}
			in := e.Find(d.Ino)
			if !d.Ident.Valid {
				in.SetIdent(index.Ident{})
			}
			if d.Flags&index.DirtyRemoved == 0 {
				in.clear(index.DirtyRemoved)
			}
		}
	}
	return e
}

func (e *Epoch) add(d *index.Dirty) {
	i := e.Inode(d.Ino, d.Gen)
	i.set(d.Flags)
	for _, name := range d.Names {
		i.MarkName(name)
	}
	if d.Parent != 0 || d.Name != "" {
		i.SetHint(d.Parent, d.Name)
	}
	if d.Blocks != nil {
		for first, end := range d.Blocks.Ranges() {
			i.MarkBlocks(uint64(first), end-uint64(first))
		}
	}
	if d.Ident.Valid {
		i.SetIdent(d.Ident)
	}
}

// Encode returns the marks in the index's form, in ascending order of the inodes, without those that have neither a mark nor a hint
// (a directory may be there only to tell where its dirty files are). A bitmap in the index has room for 2^32 blocks: beyond,
// at 16 TiB, the content as a whole counts as dirty.
func (e *Epoch) Encode() iter.Seq[*index.Dirty] {
	return func(yield func(*index.Dirty) bool) {
		for i := range e.All {
			if d := i.encode(); d != nil && !yield(d) {
				return
			}
		}
	}
}

// encode returns nil if there is nothing to keep.
func (i *Inode) encode() *index.Dirty {
	d := &index.Dirty{Ino: i.Ino(), Gen: i.Gen(), Flags: i.Flags(), Names: i.Names(), Ident: i.Ident()}
	d.Parent, d.Name = i.Hint()
	for first, n := range i.DirtyRuns {
		if first+n > 1<<32 {
			d.Flags |= index.DirtyContent
			if first >= 1<<32 {
				break
			}
			n = 1<<32 - first
		}
		if d.Blocks == nil {
			d.Blocks = roaring.New()
		}
		d.Blocks.AddRange(first, first+n)
	}
	if d.Flags == 0 && len(d.Names) == 0 && d.Blocks == nil && d.Parent == 0 && d.Name == "" {
		return nil
	}
	if d.Blocks != nil {
		d.Blocks.RunOptimize()
	}
	return d
}
