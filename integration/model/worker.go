package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	maxEntries = 60
	maxDirs    = 12
	maxOpen    = 6
	historyLen = 60

	fileHistoryLen = 24
)

// worker owns a subtree.
type worker struct {
	id   int
	root *node
	path string
	rng  *rand.Rand
	open []*handle
	log  []string
	n    int // operations done
	// mayRepeat: the server is being killed, so requests may reach a server twice.
	mayRepeat *atomic.Bool
}

// handle is an open file, which may have lost its last name.
type handle struct {
	f    *os.File
	node *node
}

// operation is one kind of random operation; a weight of 2 makes it twice as likely as 1.
type operation struct {
	name   string
	weight int
	root   bool // needs root
	do     func(*worker) error
}

func operations() []operation {
	return []operation{
		{"create", 8, false, (*worker).create},
		{"pwrite", 22, false, (*worker).pwrite},
		{"append", 5, false, (*worker).append},
		{"direct", 2, false, (*worker).direct},
		{"mmap", 6, false, (*worker).mmap},
		{"truncate", 5, false, (*worker).truncate},
		{"fallocate", 6, false, (*worker).fallocate},
		{"copyrange", 3, false, (*worker).copyRange},
		{"read", 8, false, (*worker).read},
		{"fsync", 3, false, (*worker).fsync},
		{"keep", 3, false, (*worker).keepOpen},
		{"close", 3, false, (*worker).closeOne},
		{"tmpfile", 2, false, (*worker).tmpfile},
		{"mkdir", 4, false, (*worker).mkdir},
		{"rmdir", 2, false, (*worker).rmdir},
		{"symlink", 2, false, (*worker).symlink},
		{"mkfifo", 1, false, (*worker).mkfifo},
		{"mknod", 1, true, (*worker).mknod},
		{"link", 3, false, (*worker).link},
		{"unlink", 6, false, (*worker).unlink},
		{"rename", 6, false, (*worker).rename},
		{"exchange", 2, false, (*worker).exchange},
		{"chmod", 3, false, (*worker).chmod},
		{"chown", 2, true, (*worker).chown},
		{"utimens", 3, false, (*worker).utimens},
		{"setxattr", 4, false, (*worker).setxattr},
		{"removexattr", 2, false, (*worker).removexattr},
		{"setacl", 2, false, (*worker).setACL},
	}
}

func (w *worker) run(ops int) error {
	all := operations()
	if os.Geteuid() != 0 {
		kept := all[:0]
		for _, op := range all {
			if !op.root {
				kept = append(kept, op)
			}
		}
		all = kept
	}
	total := 0
	for _, op := range all {
		total += op.weight
	}
	for range ops {
		k := w.rng.IntN(total)
		i := 0
		for ; k >= all[i].weight; i++ {
			k -= all[i].weight
		}
		if err := all[i].do(w); err != nil {
			return fmt.Errorf("worker %d, operation %d, %s: %w", w.id, w.n, all[i].name, err)
		}
		w.n++
	}
	return nil
}

// note records an operation before it is done.
func (w *worker) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%d ", w.n)+fmt.Sprintf(format, args...))
	if len(w.log) > 2*historyLen {
		w.log = append(w.log[:0], w.log[historyLen:]...)
	}
}

// noteFile is note for an operation on a file's content.
func (w *worker) noteFile(n *node, format string, args ...any) {
	w.note(format, args...)
	c := n.content
	c.log = append(c.log[max(0, len(c.log)-fileHistoryLen+1):len(c.log):len(c.log)], w.log[len(w.log)-1])
}

func (w *worker) history() []string { return w.log[max(0, len(w.log)-historyLen):] }

// pick chooses one of the entries below the worker's directory.
func (w *worker) pick(ok func(*node) bool) (place, bool) {
	var all []place
	walk(w.root, w.path, func(p place) bool {
		if ok(p.node) {
			all = append(all, p)
		}
		return true
	})
	if len(all) == 0 {
		return place{}, false
	}
	return all[w.rng.IntN(len(all))], true
}

func (w *worker) pickFile() (place, bool) { return w.pick((*node).isFile) }

// pickDir chooses a directory, the worker's own among them.
func (w *worker) pickDir() (*node, string) {
	p, ok := w.pick((*node).isDir)
	if !ok || w.rng.IntN(4) == 0 {
		return w.root, w.path
	}
	return p.node, p.full()
}

// anyPlace chooses a name that may be taken or free.
func (w *worker) anyPlace() place {
	dir, path := w.pickDir()
	name := fmt.Sprintf("%c%d", 'a'+rune(w.rng.IntN(4)), w.rng.IntN(8))
	switch w.rng.IntN(12) {
	case 0:
		name = "sp ace\t'\"\n" + name
	case 1:
		name = "\xff\xfe" + name // not UTF-8
	}
	return place{dir, path, name, dir.entries[name]}
}

func (w *worker) freePlace() place {
	p := w.anyPlace()
	for i := 0; p.node != nil; i++ {
		p.name = fmt.Sprintf("n%d-%d", w.n, i)
		p.node = p.dir.entries[p.name]
	}
	return p
}

func (w *worker) crowded() bool {
	entries := 0
	walk(w.root, w.path, func(place) bool { entries++; return true })
	return entries >= maxEntries
}

func (w *worker) dirs() int {
	n := 0
	walk(w.root, w.path, func(p place) bool {
		if p.node.isDir() {
			n++
		}
		return true
	})
	return n
}

// withFile opens a file of the subtree, or takes one that is open, and calls fn.
func (w *worker) withFile(fn func(f *os.File, n *node) error) error {
	if len(w.open) > 0 && w.rng.IntN(2) == 0 {
		h := w.open[w.rng.IntN(len(w.open))]
		return fn(h.f, h.node)
	}
	p, ok := w.pickFile()
	if !ok {
		return nil
	}
	f, err := openFile(p.full(), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = fn(f, p.node)
	return errors.Join(err, f.Close())
}

func openFile(path string, flags int, mode uint32) (*os.File, error) {
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func ignoringEINTR(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (w *worker) closeAll() {
	for _, h := range w.open {
		h.f.Close()
	}
	w.open = nil
}

// expect checks that a call failed as it must.
func expect(what string, got, want error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("%s: got error %v, want %v", what, got, want)
	}
	return nil
}

// newNode is an inode as creating it in dir makes it: group and default ACL come from the directory.
func newNode(dir *node, mode uint32) *node {
	n := &node{mode: mode, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), links: 1}
	if dir.mode&unix.S_ISGID != 0 {
		n.gid = dir.gid
		if n.isDir() {
			n.mode |= unix.S_ISGID
		}
	}
	switch {
	case n.isDir():
		n.entries = map[string]*node{}
		n.def = dir.def
	case n.isFile():
		n.content = newContent()
	}
	if dir.def != nil && !n.isSymlink() {
		n.acl = dir.def.inherit(mode)
		n.mode = n.mode&^0o777 | n.acl.bits()
	}
	return n
}
