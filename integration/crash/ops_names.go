package crash

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (w *worker) fsyncDir() error { return w.syncDir(w.pickDir()) }

func (w *worker) syncDir(p place) error {
	return w.o.sync(func() error { return fsyncPath(w.at(p.path)) },
		func(then uint64) { w.note(p.dir, "fsync %s", p.path); p.dir.sync(then, false) })
}

// rename moves a file or a directory to a free name, or a file over another one.
func (w *worker) rename() error {
	from, ok := w.pick(func(target) bool { return true })
	if !ok {
		return nil
	}
	to := w.free()
	if other, ok := w.pick(isFile); ok && !from.obj.dir && w.rng.IntN(2) == 0 && other.obj != from.obj {
		to = other
	}
	if from.obj.dir && within(to.path, from.full()) {
		return nil
	}
	return w.move(from, to)
}

func within(path, top string) bool {
	return path == top || len(path) > len(top) && path[:len(top)+1] == top+"/"
}

func (w *worker) move(from, to target) error {
	return w.o.change(func(c *call) {
		for _, f := range []*object{from.obj, from.dir, to.dir} {
			w.note(f, "rename %s to %s", from.full(), to.full())
		}
		if to.obj != nil {
			to.obj.removed = true
		}
		ask(c, from.dir.name(from.name), nil)
		ask(c, to.dir.name(to.name), from.obj)
	}, func() error { return unix.Rename(w.at(from.full()), w.at(to.full())) })
}

// save writes a file anew as editors do: what is durable in the end is the old content or the new.
func (w *worker) save() error {
	old, ok := w.pick(isFile)
	if !ok {
		return nil
	}
	t := w.free()
	t.place = old.place
	t.name = fmt.Sprintf("%stmp%d", w.prefix(), w.op)
	t.obj = newObject(false, 0o600)
	err := w.make(t, func(f *os.File) error {
		if err := w.writeAt(f, t, 0, w.length()); err != nil {
			return err
		}
		return w.syncFile(f, t)
	})
	if err != nil {
		return err
	}
	if err := w.move(t, old); err != nil || w.rng.IntN(2) == 0 {
		return err
	}
	return w.syncDir(old.place)
}

func (w *worker) link() error {
	from, ok := w.pick(isFile)
	if !ok {
		return nil
	}
	to := w.free()
	return w.o.change(func(c *call) {
		w.note(from.obj, "link %s to %s", from.full(), to.full())
		ask(c, to.dir.name(to.name), from.obj)
	}, func() error { return unix.Link(w.at(from.full()), w.at(to.full())) })
}

func (w *worker) unlink() error {
	t, ok := w.pick(isFile)
	if !ok {
		return nil
	}
	return w.remove(t, unix.Unlink)
}

func (w *worker) remove(t target, act func(path string) error) error {
	return w.o.change(func(c *call) {
		w.note(t.obj, "remove %s", t.full())
		w.note(t.dir, "remove %s", t.full())
		t.obj.removed = true
		ask(c, t.dir.name(t.name), nil)
	}, func() error { return act(w.at(t.full())) })
}

func (w *worker) mkdir() error {
	t := w.free()
	t.obj = newObject(true, 0o755)
	return w.o.change(func(c *call) {
		w.note(t.obj, "mkdir %s", t.full())
		ask(c, t.dir.name(t.name), t.obj)
	}, func() error {
		if err := os.Mkdir(w.at(t.full()), 0o755); err != nil {
			return err
		}
		return w.o.identify(t.obj, w.at(t.full()))
	})
}

func (w *worker) rmdir() error {
	t, ok := w.pick(func(t target) bool { return t.obj.dir && len(t.obj.entries()) == 0 })
	if !ok {
		return nil
	}
	return w.remove(t, unix.Rmdir)
}

func (w *worker) chmod() error {
	t, ok := w.pick(func(target) bool { return true })
	if !ok {
		return nil
	}
	mode := 0o600 + uint32(w.rng.IntN(0o100))
	if t.obj.dir {
		mode |= 0o100
	}
	return w.o.change(func(c *call) {
		w.note(t.obj, "chmod %s to %o", t.full(), mode)
		ask(c, &t.obj.mode, mode)
	}, func() error { return unix.Chmod(w.at(t.full()), mode) })
}

func (w *worker) setxattr() error {
	t, ok := w.pick(func(target) bool { return true })
	if !ok {
		return nil
	}
	val := fmt.Sprintf("op %d", w.op)
	return w.o.change(func(c *call) {
		w.note(t.obj, "setxattr %s to %s", t.full(), val)
		ask(c, &t.obj.xattr, val)
	}, func() error { return unix.Setxattr(w.at(t.full()), xattrName, []byte(val), 0) })
}
