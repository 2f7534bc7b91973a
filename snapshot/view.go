package snapshot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// view is the tree of one snapshot, without its file contents.
type view struct {
	nodes *tree.Nodes
	root  tree.Root
}

// place is a name in a directory.
type place struct {
	dir  uint64
	name string
}

func (p place) compare(o place) int {
	if p.dir != o.dir {
		if p.dir < o.dir {
			return -1
		}
		return 1
	}
	return strings.Compare(p.name, o.name)
}

// record reads an inode's record; false if the snapshot has no such inode.
func (v view) record(ctx context.Context, ino uint64) (tree.Record, bool, error) {
	p, ok, err := v.nodes.Get(ctx, v.root.Inodes, ino, "")
	if err != nil || !ok {
		return tree.Record{}, false, err
	}
	rec, err := tree.DecodeRecord(ino, p)
	return rec, err == nil, err
}

// eachRecord calls fn for every inode, ascending.
func (v view) eachRecord(ctx context.Context, fn func(*tree.Record) error) error {
	return v.nodes.Ascend(ctx, v.root.Inodes, 0, func(e tree.Entry) error {
		rec, err := tree.DecodeRecord(e.Key, e.Value)
		if err != nil {
			return err
		}
		return fn(&rec)
	})
}

// nameTable knows the directories' names, and those of the inodes that it was made for.
type nameTable struct {
	root   uint64
	places map[uint64][]place
	count  int // of places
	long   int // bytes of longer paths that were made
}

// Bounds of paths. They can be as long as all names of a snapshot together, and so all of them take the square of that.
const (
	longPath     = unix.PathMax
	longestPath  = 1 << 20  // of any
	longestPaths = 64 << 20 // of all above longPath together; from there on none may be longer
)

// A directory's names take no room when another one has the same, so there may be more names than fit into memory.
const (
	freeNames      = 1 << 21
	namesOfAnInode = 16 // on average, above that
)

func tooManyNames(names, inodes int) bool { return names > freeNames+namesOfAnInode*inodes }

// names reads all directories. Inodes that aren't directories are left out unless want says otherwise.
func (v view) names(ctx context.Context, want func(ino uint64) bool) (*nameTable, error) {
	t := &nameTable{root: v.root.Ino, places: make(map[uint64][]place)}
	err := v.eachRecord(ctx, func(rec *tree.Record) error {
		if !rec.IsDir() {
			return nil
		}
		return v.nodes.Ascend(ctx, rec.Content, 0, func(e tree.Entry) error {
			d, err := tree.DecodeDirent(e)
			if err != nil {
				return err
			}
			if d.Type == tree.TypeOf(tree.ModeDir) || want(d.Ino) {
				t.places[d.Ino] = append(t.places[d.Ino], place{rec.Ino, d.Name})
				if t.count++; tooManyNames(t.count, len(t.places)) {
					return ErrTooManyNames
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read directories: %w", err)
	}
	return t, nil
}

// of gives the inode's paths below the root, "." for the root itself, sorted; none if it has no name.
func (t *nameTable) of(ino uint64) []string {
	if ino == t.root {
		return []string{"."}
	}
	var out []string
	for _, p := range t.places[ino] {
		out = append(out, t.path(p))
	}
	slices.Sort(out)
	return out
}

// path gives the path of a place. A directory that can't be reached from the root, or by too long a path, is shown as its inode number.
func (t *nameTable) path(p place) string {
	elems, n := []string{p.name}, len(p.name)
	for dir, depth := p.dir, 0; dir != t.root; depth++ {
		up := t.places[dir]
		if len(up) == 0 || depth > len(t.places) || n > longestPath || n > longPath && t.long+n > longestPaths {
			elems = append(elems, fmt.Sprintf("[inode %d]", dir))
			break
		}
		elems, n = append(elems, up[0].name), n+1+len(up[0].name)
		dir = up[0].dir
	}
	if n > longPath {
		t.long += n
	}
	slices.Reverse(elems)
	return strings.Join(elems, "/")
}

// reach walks all that snapshots refer to.
type reach struct {
	nodes *tree.Nodes
	node  func(id chunkstore.ID) bool // for each node that is a chunk; false: nothing below it is visited
	data  func(id chunkstore.ID)      // for each chunk of content or of extended attributes
	// damaged gets what keeps a part of the tree from being walked, and says whether to go on.
	damaged func(err error) error
}

// tree walks a snapshot's tree. The chunk of the root record is the caller's business.
func (w *reach) tree(ctx context.Context, root tree.Root) error {
	return w.walk(ctx, root.Inodes, func(e tree.Entry) error {
		rec, err := tree.DecodeRecord(e.Key, e.Value)
		if err != nil {
			return w.damaged(err)
		}
		for _, id := range rec.XattrChunks {
			w.data(id)
		}
		switch {
		case rec.IsRegular():
			return w.walk(ctx, rec.Content, w.segment)
		case rec.IsDir():
			return w.walk(ctx, rec.Content, func(tree.Entry) error { return nil })
		}
		return nil
	})
}

func (w *reach) walk(ctx context.Context, ref tree.Ref, leaf func(tree.Entry) error) error {
	err := w.nodes.Reach(ctx, ref, w.node, leaf)
	if err != nil && ctx.Err() == nil {
		err = w.damaged(err)
	}
	return err
}

func (w *reach) segment(e tree.Entry) error {
	seg, err := tree.DecodeSegment(e.Value)
	if err != nil {
		return w.damaged(err)
	}
	for _, id := range seg.Chunks() {
		w.data(id)
	}
	return nil
}
