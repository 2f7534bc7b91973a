package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Run is a tree under random change.
type Run struct {
	dir     string
	tree    *Tree
	shared  *node // names of other workers' inodes, changed only between rounds
	workers []*worker
	rng     *rand.Rand

	mayRepeat atomic.Bool
}

// New makes the workers' subtrees below dir, which must be empty. The process's umask must be 0.
func New(dir string, seed uint64, workers int) (*Run, error) {
	r := &Run{dir: dir, rng: rand.New(rand.NewPCG(seed, 0))}
	root, err := rootNode(dir)
	if err != nil {
		return nil, err
	}
	r.tree = &Tree{root: root}
	mk := func(name string) (*node, error) {
		if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
			return nil, err
		}
		n := newNode(root, unix.S_IFDIR|0o755)
		root.entries[name] = n
		root.touch()
		return n, nil
	}
	if r.shared, err = mk("shared"); err != nil {
		return nil, err
	}
	for i := range workers {
		name := fmt.Sprintf("w%d", i)
		n, err := mk(name)
		if err != nil {
			return nil, err
		}
		w := &worker{
			id: i, root: n, path: dir + "/" + name,
			rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), mayRepeat: &r.mayRepeat,
		}
		r.workers = append(r.workers, w)
	}
	return r, nil
}

func rootNode(dir string) (*node, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return &node{mode: st.Mode, uid: st.Uid, gid: st.Gid, entries: map[string]*node{}}, nil
}

// MayRepeat says whether requests may reach the filesystem twice, as when a server is killed.
func (r *Run) MayRepeat(yes bool) { r.mayRepeat.Store(yes) }

// Round lets every worker do ops operations at the same time, then moves and links some names between subtrees.
func (r *Run) Round(ops int) error {
	errs := make([]error, len(r.workers))
	var wg sync.WaitGroup
	for i, w := range r.workers {
		wg.Go(func() { errs[i] = w.run(ops) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for range 4 {
		if err := r.cross(); err != nil {
			return err
		}
	}
	return nil
}

// Observe reads the modification times that the model can't know, checks everything else of the live tree that
// lstat and listxattr show, and returns a copy: what a snapshot taken now must be.
func (r *Run) Observe() (*Tree, error) {
	if err := compare(r.tree, r.dir, Options{observe: true, skipContent: true}); err != nil {
		return nil, err
	}
	return r.tree.Clone(), nil
}

// SyncAll makes every file and directory of the tree durable.
func (r *Run) SyncAll() error {
	var err error
	walk(r.tree.root, r.dir, func(p place) bool {
		if p.node.isFile() || p.node.isDir() {
			err = fsyncPath(p.full())
		}
		return err == nil
	})
	return errors.Join(err, fsyncPath(r.dir))
}

func fsyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// CloseFiles closes every descriptor that workers keep open, as an unmount needs.
func (r *Run) CloseFiles() {
	for _, w := range r.workers {
		w.closeAll()
	}
}

// Compare compares the live tree with the model.
func (r *Run) Compare(o Options) error { return compare(r.tree, r.dir, o) }

// History is what the workers did last, for a failed test's log.
func (r *Run) History() string {
	var b strings.Builder
	for _, w := range r.workers {
		fmt.Fprintf(&b, "worker %d, last operations:\n", w.id)
		for _, line := range w.history() {
			b.WriteString("  " + line + "\n")
		}
	}
	return b.String()
}
