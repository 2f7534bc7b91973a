package index

import (
	"io"
)

// branchWalk follows the branch pages of all buckets. bbolt looks only whether a page is the one that it is said to be, so where a damaged branch leads
// back to one above it, bbolt goes around for ever, and remembers each step. The leaves, by far the most pages, are read only where they have
// buckets in them: their rows have checksums.
type branchWalk struct {
	pages        pageWalk
	branch, leaf pageSet
}

// pageSet has a bit for each page.
type pageSet []uint64

func newPageSet(pages uint64) pageSet { return make(pageSet, pages/64+1) }

func (s pageSet) add(id uint64)      { s[id/64] |= 1 << (id % 64) }
func (s pageSet) has(id uint64) bool { return s[id/64]&(1<<(id%64)) != 0 }

// checkBranches checks that no way from the root of the database leads around in a circle.
func checkBranches(f io.ReaderAt, h fileHead) error {
	b := branchWalk{
		pages:  pageWalk{file: f, pageSize: h.pageSize, pages: h.pages},
		branch: newPageSet(h.pages), leaf: newPageSet(h.pages),
	}
	return b.tree(h.root, func(leaf []byte) error {
		return b.buckets(leaf, func(name string, root uint64) error {
			if name != bucketEpochs {
				return b.tree(root, nil)
			}
			return b.tree(root, func(leaf []byte) error {
				return b.buckets(leaf, func(_ string, root uint64) error { return b.tree(root, nil) })
			})
		})
	})
}

// tree checks a bucket's tree. inner, if set, is called with each of its leaf pages.
func (b *branchWalk) tree(root uint64, inner func(leaf []byte) error) error {
	levels, err := b.levels(root)
	if err != nil {
		return err
	}
	return b.visit(root, levels, inner)
}

// levels tells how many branches are above each leaf: everywhere as many as above the first one.
func (b *branchWalk) levels(id uint64) (n int, err error) {
	for ; n <= maxDepth; n++ {
		p, err := b.read(id)
		if err != nil {
			return 0, err
		}
		if word16(p[8:]) == pageLeaf {
			return n, nil
		}
		id = word64(p[pageHead+8:])
	}
	return 0, badPage(id, "is too deep")
}

func (b *branchWalk) visit(id uint64, level int, inner func(leaf []byte) error) error {
	switch {
	case id < 2 || id >= b.pages.pages:
		return badPage(id, "is not one of the %d pages", b.pages.pages)
	case b.branch.has(id) || level > 0 && b.leaf.has(id):
		return badPage(id, "is used twice")
	case level == 0:
		b.leaf.add(id)
		if inner == nil {
			return nil
		}
	default:
		b.branch.add(id)
	}
	p, err := b.read(id)
	if err != nil {
		return err
	}
	if want := []uint16{pageLeaf, pageBranch}[min(level, 1)]; word16(p[8:]) != want {
		return badPage(id, "is no page of kind %d", want)
	}
	if level == 0 {
		return inner(p)
	}
	for i := range uint64(word16(p[10:])) {
		if err := b.visit(word64(p[pageHead+i*elementLen+8:]), level-1, inner); err != nil {
			return err
		}
	}
	return nil
}

// read returns a page that is a branch or a leaf, and has its elements in it.
func (b *branchWalk) read(id uint64) ([]byte, error) {
	if id < 2 || id >= b.pages.pages {
		return nil, badPage(id, "is not one of the %d pages", b.pages.pages)
	}
	p, err := b.pages.read(id)
	if err != nil {
		return nil, unreadPage(id, err)
	}
	if err := boundsOf(p, 0); err != nil {
		return nil, badPage(id, "%v", err)
	}
	return p, nil
}

// buckets calls fn for the buckets in a leaf page that have pages of their own.
func (b *branchWalk) buckets(p []byte, fn func(name string, root uint64) error) error {
	for i := range uint64(word16(p[10:])) {
		e, err := elementAt(p, pageLeaf, i)
		if err != nil {
			return err
		}
		if !e.bucket || word64(e.value) == 0 {
			continue
		}
		if err := fn(string(e.key), word64(e.value)); err != nil {
			return err
		}
	}
	return nil
}
