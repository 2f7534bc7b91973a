package crash

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Oracle knows what may be on the disk below a directory.
type Oracle struct {
	cut  atomic.Bool
	rest sync.RWMutex // held for reading by each operation of the load

	mu struct {
		sync.Mutex
		clock uint64
		root  *object
		ops   uint64 // operations begun, which what they write names
	}
}

// ErrCut ends a load: the power was cut.
var ErrCut = errors.New("the power was cut")

// New makes the oracle of an empty directory.
func New() *Oracle {
	o := &Oracle{}
	o.mu.root = newObject(true, 0)
	o.mu.root.named = true
	return o
}

func newObject(dir bool, mode uint32) *object {
	f := &object{dir: dir}
	f.mode.first = mode
	if dir {
		f.names = map[string]*history[*object]{}
	} else {
		f.blocks = map[int64]*history[block]{}
	}
	return f
}

// Operations tells how many have begun.
func (o *Oracle) Operations() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.ops
}

// Cut says that the power is going to be cut: from now on calls may fail.
func (o *Oracle) Cut() { o.cut.Store(true) }

// Resting calls fn while nothing of the load runs.
func (o *Oracle) Resting(fn func() error) error {
	o.rest.Lock()
	defer o.rest.Unlock()
	return fn()
}

// change tells of a change, makes it, and tells that it was made.
func (o *Oracle) change(record func(c *call), act func() error) error {
	var c call
	o.mu.Lock()
	record(&c)
	o.mu.Unlock()
	if err := o.result(act()); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.clock++
	for _, h := range c.changed {
		h.done(o.mu.clock)
	}
	return nil
}

// sync makes something durable and tells so.
func (o *Oracle) sync(act func() error, record func(then uint64)) error {
	o.mu.Lock()
	then := o.mu.clock
	o.mu.Unlock()
	err := act()
	if o.cut.Load() {
		// Success doesn't count either: xfs has fsync of a directory succeed when the power is gone.
		return ErrCut
	}
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	record(then)
	return nil
}

func (o *Oracle) result(err error) error {
	if err != nil && o.cut.Load() {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return err
}

// setup makes a directory that is durable from the start.
func (o *Oracle) setup(dir *object, path, name string) (*object, error) {
	d := newObject(true, 0o755)
	err := o.change(func(c *call) { ask(c, dir.name(name), d) }, func() error {
		if err := os.Mkdir(path+"/"+name, 0o755); err != nil {
			return err
		}
		return o.identify(d, path+"/"+name)
	})
	if err != nil {
		return nil, err
	}
	for _, p := range []string{path + "/" + name, path} {
		if err := fsyncPath(p); err != nil {
			return nil, err
		}
	}
	return d, o.sync(func() error { return nil }, func(then uint64) { d.sync(then, false); dir.sync(then, false) })
}

// identify learns the inode number of what stands at path.
func (o *Oracle) identify(f *object, path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	f.ino = st.Ino
	return nil
}

func fsyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
