package cow

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"syscall"
)

// mnode is one inode of the model; never changed once it is in a state.
type mnode struct {
	ino    uint64
	typ    uint32
	perm   uint32
	nlink  uint32
	target string
	mtime  int64 // seconds, if it was set last; 0: unknown
	xattrs map[string]string
	names  map[string]uint64
	size   int64
	blocks map[uint64][]byte
}

func (n *mnode) clone() *mnode {
	c := *n
	c.xattrs, c.names, c.blocks = maps.Clone(n.xattrs), maps.Clone(n.names), maps.Clone(n.blocks)
	return &c
}

func (n *mnode) write(p []byte, off int64) {
	n.mtime = 0
	n.size = max(n.size, off+int64(len(p)))
	for len(p) > 0 {
		b, at := uint64(off)/blockSize, int(off%blockSize)
		blk := make([]byte, blockSize)
		copy(blk, n.blocks[b])
		k := copy(blk[at:], p)
		n.blocks[b] = blk
		p, off = p[k:], off+int64(k)
	}
}

func (n *mnode) read(off int64, size int) []byte {
	p := make([]byte, size)
	for i := 0; i < size; {
		b, at := uint64(off+int64(i))/blockSize, int((off+int64(i))%blockSize)
		k := min(blockSize-at, size-i)
		if blk := n.blocks[b]; blk != nil {
			copy(p[i:i+k], blk[at:])
		}
		i += k
	}
	return p[:max(0, min(int64(size), n.size-off))]
}

func (n *mnode) truncate(size int64) {
	n.mtime = 0
	if size < n.size {
		for b := range n.blocks {
			if int64(b)*blockSize >= size {
				delete(n.blocks, b)
			}
		}
		if at := size % blockSize; at != 0 {
			if blk := n.blocks[uint64(size)/blockSize]; blk != nil {
				c := make([]byte, blockSize)
				copy(c, blk[:at])
				n.blocks[uint64(size)/blockSize] = c
			}
		}
	}
	n.size = size
}

func (n *mnode) zero(off, size int64) {
	if end := min(off+size, n.size); end > off {
		n.write(make([]byte, end-off), off)
	}
	n.mtime = 0
}

// shift moves all blocks from block at on by k blocks; with k < 0 those in between go.
func (n *mnode) shift(at uint64, k int64) {
	moved := map[uint64][]byte{}
	for b, blk := range n.blocks {
		switch {
		case b < at:
			moved[b] = blk
		case k > 0 || b >= at+uint64(-k):
			moved[uint64(int64(b)+k)] = blk
		}
	}
	n.blocks, n.size, n.mtime = moved, n.size+k*blockSize, 0
}

// state is a lane's directory at one moment; never changed once published.
type state struct {
	step  int
	nodes map[uint64]*mnode
	// shared are the lane's own blocks of the file that all lanes write to.
	shared map[uint64][]byte
}

func (s *state) clone() *state {
	return &state{step: s.step + 1, nodes: maps.Clone(s.nodes), shared: s.shared}
}

// edit returns a node of s that may be changed.
func (s *state) edit(ino uint64) *mnode {
	n := s.nodes[ino].clone()
	s.nodes[ino] = n
	return n
}

func (s *state) link(dir uint64, name string, ino uint64) {
	s.edit(dir).names[name] = ino
	if n := s.edit(ino); n.typ != syscall.S_IFDIR {
		n.nlink++
	}
}

func (s *state) unlink(dir uint64, name string) {
	d := s.edit(dir)
	ino := d.names[name]
	delete(d.names, name)
	n := s.edit(ino)
	if n.typ != syscall.S_IFDIR {
		n.nlink--
	} else {
		delete(s.nodes, ino)
	}
}

// image is what a snapshot store would hold: it is built from an earlier image by reading nothing but the dirty parts.
type image struct {
	inodes map[uint64]*inodeImage
}

func (im *image) clone() *image { return &image{maps.Clone(im.inodes)} }

// compare tells what differs between a lane's state and the image, from the lane's root on; seen collects the inodes.
func (s *state) compare(im *image, root uint64, seen map[uint64]bool) error {
	todo := []uint64{root}
	for len(todo) > 0 {
		ino := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[ino] {
			continue
		}
		seen[ino] = true
		m, got := s.nodes[ino], im.inodes[ino]
		if m == nil || got == nil {
			return fmt.Errorf("inode %d: model has it: %v, snapshot has it: %v", ino, m != nil, got != nil)
		}
		if err := m.compare(got); err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		for _, c := range m.names {
			todo = append(todo, c)
		}
	}
	return nil
}

func (n *mnode) compare(g *inodeImage) error {
	t := &g.t
	switch {
	case t.Mode&syscall.S_IFMT != n.typ:
		return fmt.Errorf("type %o, want %o", t.Mode&syscall.S_IFMT, n.typ)
	case t.Mode&0o7777 != n.perm:
		return fmt.Errorf("mode %o, want %o", t.Mode&0o7777, n.perm)
	case n.typ != syscall.S_IFDIR && t.Nlink != n.nlink:
		return fmt.Errorf("%d links, want %d", t.Nlink, n.nlink)
	case t.Target != n.target:
		return fmt.Errorf("target %q, want %q", t.Target, n.target)
	case n.mtime != 0 && t.Mtime.Sec != n.mtime:
		return fmt.Errorf("mtime %d, want %d", t.Mtime.Sec, n.mtime)
	}
	x := map[string]string{}
	for _, a := range t.Xattrs {
		x[a.Name] = string(a.Value)
	}
	if !maps.Equal(x, n.xattrs) {
		return fmt.Errorf("xattrs %v, want %v", x, n.xattrs)
	}
	if n.typ == syscall.S_IFDIR && !maps.Equal(g.names, n.names) {
		return fmt.Errorf("names %v, want %v", g.names, n.names)
	}
	if n.typ != syscall.S_IFREG {
		return nil
	}
	if t.Size != n.size {
		return fmt.Errorf("size %d, want %d", t.Size, n.size)
	}
	return compareBlocks(n.blocks, g.blocks)
}

func compareBlocks(want, got map[uint64][]byte) error {
	all := slices.Collect(maps.Keys(want))
	for b := range got {
		all = append(all, b)
	}
	slices.Sort(all)
	for _, b := range slices.Compact(all) {
		w, g := want[b], got[b]
		if w == nil {
			w = zeroBlock[:]
		}
		if g == nil {
			g = zeroBlock[:]
		}
		if !bytes.Equal(w, g) {
			i := 0
			for w[i] == g[i] {
				i++
			}
			return fmt.Errorf("block %d differs at byte %d: %#x…, want %#x…", b, i, g[i:min(i+8, len(g))], w[i:min(i+8, len(w))])
		}
	}
	return nil
}
