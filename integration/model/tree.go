package model

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// node is one inode.
type node struct {
	mode     uint32 // with the type, as st_mode
	uid, gid uint32
	links    int // names of anything but a directory
	rdev     uint64
	target   string
	content  *content
	entries  map[string]*node
	xattrs   map[string]string
	acl, def *acl

	mtime unix.Timespec
	// known: mtime is what utimensat set; nothing has changed the inode since. Otherwise Observe reads it.
	known bool
}

func (n *node) kind() uint32    { return n.mode & unix.S_IFMT }
func (n *node) isDir() bool     { return n.kind() == unix.S_IFDIR }
func (n *node) isFile() bool    { return n.kind() == unix.S_IFREG }
func (n *node) isSymlink() bool { return n.kind() == unix.S_IFLNK }
func (n *node) touch()          { n.known = false }
func (n *node) names() []string { return slices.Sorted(maps.Keys(n.entries)) }

func (n *node) subdirs() int {
	count := 0
	for _, c := range n.entries {
		if c.isDir() {
			count++
		}
	}
	return count
}

// allXattrs are the attributes that listxattr must show, ACLs in the kernel's binary form.
func (n *node) allXattrs() map[string]string {
	all := maps.Clone(n.xattrs)
	if all == nil {
		all = map[string]string{}
	}
	if n.acl != nil {
		all[aclAccess] = n.acl.encode()
	}
	if n.def != nil {
		all[aclDefault] = n.def.encode()
	}
	return all
}

// Tree is a directory tree at one moment.
type Tree struct{ root *node }

// Clone copies the tree; content is shared.
func (t *Tree) Clone() *Tree {
	return &Tree{root: cloneNode(t.root, map[*node]*node{})}
}

func cloneNode(n *node, seen map[*node]*node) *node {
	if c, ok := seen[n]; ok {
		return c
	}
	c := new(node)
	*c = *n
	seen[n] = c
	c.xattrs = maps.Clone(n.xattrs)
	if n.content != nil {
		c.content = n.content.clone()
	}
	if n.entries != nil {
		c.entries = make(map[string]*node, len(n.entries))
		for name, e := range n.entries {
			c.entries[name] = cloneNode(e, seen)
		}
	}
	return c
}

// within reports whether n is top or stands below it.
func within(top, n *node) bool {
	if top == n {
		return true
	}
	for _, c := range top.entries {
		if c.isDir() && within(c, n) {
			return true
		}
	}
	return false
}

// place is a name in a directory.
type place struct {
	dir  *node
	path string // of dir
	name string
	node *node // nil: the name is free
}

func (p place) full() string { return p.path + "/" + p.name }

// walk lists every place below dir, in the order of names.
func walk(dir *node, path string, yield func(place) bool) bool {
	for _, name := range dir.names() {
		p := place{dir, path, name, dir.entries[name]}
		if !yield(p) {
			return false
		}
		if p.node.isDir() && !walk(p.node, p.full(), yield) {
			return false
		}
	}
	return true
}
