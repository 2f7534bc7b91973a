package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
)

// Load changes a tree in several goroutines. Each has a subtree of its own; in a common directory each has its own names, and in a
// common file its own blocks.
type Load struct {
	o       *Oracle
	workers []*worker
}

const (
	maxEntries   = 40 // of a worker
	commonBlocks = 256
)

// NewLoad makes the subtrees below dir, which must be empty.
func NewLoad(o *Oracle, dir string, seed uint64, workers int) (*Load, error) {
	common, err := o.setup(o.mu.root, dir, "common")
	if err != nil {
		return nil, err
	}
	l := &Load{o: o}
	for i := range workers {
		name := fmt.Sprintf("w%d", i)
		root, err := o.setup(o.mu.root, dir, name)
		if err != nil {
			return nil, err
		}
		l.workers = append(l.workers, &worker{
			o: o, id: i, of: workers, dir: dir, common: common, roots: []place{{root, name}, {common, "common"}},
			rng: rand.New(rand.NewPCG(seed, uint64(i)+1)),
		})
	}
	return l, l.workers[0].makeCommonFile()
}

// Run changes the tree until the power is cut, which is no error.
func (l *Load) Run() error {
	errs := make([]error, len(l.workers))
	var wg sync.WaitGroup
	for i, w := range l.workers {
		wg.Go(func() { errs[i] = w.run() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// place is a directory and its path below the top.
type place struct {
	dir  *object
	path string
}

type worker struct {
	o      *Oracle
	id, of int
	dir    string // the top
	common *object
	roots  []place
	rng    *rand.Rand
	op     uint64
	names  int
}

type operation struct {
	name   string
	weight int
	do     func(*worker) error
}

func operations() []operation {
	return []operation{
		{"create", 6, (*worker).create},
		{"write", 18, (*worker).write},
		{"append", 6, (*worker).append},
		{"log", 4, (*worker).log},
		{"mmap", 5, (*worker).mmap},
		{"synced write", 3, (*worker).syncedWrite},
		{"truncate", 4, (*worker).truncate},
		{"punch", 3, (*worker).punch},
		{"fallocate", 2, (*worker).fallocate},
		{"common file", 5, (*worker).commonFile},
		{"fsync", 6, (*worker).fsync},
		{"fdatasync", 4, (*worker).fdatasync},
		{"fsync dir", 6, (*worker).fsyncDir},
		{"rename", 6, (*worker).rename},
		{"save", 3, (*worker).save},
		{"link", 2, (*worker).link},
		{"unlink", 5, (*worker).unlink},
		{"mkdir", 2, (*worker).mkdir},
		{"rmdir", 2, (*worker).rmdir},
		{"chmod", 2, (*worker).chmod},
		{"setxattr", 2, (*worker).setxattr},
	}
}

func (w *worker) run() error {
	all := operations()
	total := 0
	for _, op := range all {
		total += op.weight
	}
	for !w.o.cut.Load() {
		k, at := w.rng.IntN(total), 0
		for ; k >= all[at].weight; at++ {
			k -= all[at].weight
		}
		err := w.one(all[at])
		if errors.Is(err, ErrCut) {
			return nil
		} else if err != nil {
			return fmt.Errorf("worker %d, op %d, %s: %w", w.id, w.op, all[at].name, err)
		}
	}
	return nil
}

func (w *worker) one(op operation) error {
	w.o.rest.RLock()
	defer w.o.rest.RUnlock()
	w.o.mu.Lock()
	w.o.mu.ops++
	w.op = w.o.mu.ops
	w.o.mu.Unlock()
	return op.do(w)
}

// target is a name that is taken.
type target struct {
	place
	name string
	obj  *object
}

func (p target) full() string { return p.path + "/" + p.name }

// mine lists the worker's names, and its directories.
func (w *worker) mine() (names []target, dirs []place) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	var walk func(p place)
	walk = func(p place) {
		dirs = append(dirs, p)
		for _, name := range p.dir.entries() {
			if f := p.dir.entry(name); w.owns(p.dir, name) {
				names = append(names, target{p, name, f})
				if f.dir {
					walk(place{f, p.path + "/" + name})
				}
			}
		}
	}
	for _, r := range w.roots {
		walk(r)
	}
	return names, dirs
}

func (w *worker) prefix() string { return fmt.Sprintf("w%d-", w.id) }

func (w *worker) owns(dir *object, name string) bool {
	return dir != w.common || len(name) > len(w.prefix()) && name[:len(w.prefix())] == w.prefix()
}

// pick chooses one of the worker's names.
func (w *worker) pick(ok func(target) bool) (target, bool) {
	names, _ := w.mine()
	var fit []target
	for _, t := range names {
		if ok(t) {
			fit = append(fit, t)
		}
	}
	if len(fit) == 0 {
		return target{}, false
	}
	return fit[w.rng.IntN(len(fit))], true
}

func isFile(t target) bool { return !t.obj.dir }

func (w *worker) pickDir() place {
	_, dirs := w.mine()
	return dirs[w.rng.IntN(len(dirs))]
}

// free is a name that isn't taken; often one that has been.
func (w *worker) free() target {
	p := w.pickDir()
	for {
		name := fmt.Sprintf("%s%c", w.prefix(), 'a'+rune(w.rng.IntN(12)))
		if w.rng.IntN(3) == 0 {
			w.names++
			name = fmt.Sprintf("%sn%d", w.prefix(), w.names)
		}
		w.o.mu.Lock()
		taken := p.dir.entry(name) != nil
		w.o.mu.Unlock()
		if !taken {
			return target{place: p, name: name}
		}
	}
}

func (w *worker) at(rel string) string { return w.dir + "/" + rel }

func (w *worker) note(f *object, format string, args ...any) {
	f.note("op %d: "+format, append([]any{w.op}, args...)...)
}
