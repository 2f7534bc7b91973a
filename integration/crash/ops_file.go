package crash

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	usualSize = 256 << 10
	farSize   = 160 << 20 // some files are sparse, and have blocks in several regions of 64 MiB
)

func (w *worker) offset(size int64) int64 {
	switch w.rng.IntN(12) {
	case 0:
		return w.rng.Int64N(farSize) &^ (blockSize - 1)
	case 1, 2:
		return w.rng.Int64N(usualSize)
	case 3, 4, 5, 6:
		return w.rng.Int64N(min(size, usualSize)+1) &^ (blockSize - 1)
	}
	return w.rng.Int64N(size + 1)
}

func (w *worker) length() int {
	switch w.rng.IntN(6) {
	case 0:
		return 1 + w.rng.IntN(64<<10)
	case 1, 2:
		return 1 + w.rng.IntN(2*blockSize)
	}
	return blockSize
}

// withFile opens one of the worker's files.
func (w *worker) withFile(flags int, fn func(f *os.File, t target) error) error {
	t, ok := w.pick(isFile)
	if !ok {
		return nil
	}
	return w.open(t, flags, fn)
}

func (w *worker) open(t target, flags int, fn func(f *os.File, t target) error) error {
	f, err := os.OpenFile(w.at(t.full()), os.O_RDWR|flags, 0)
	if err = w.o.result(err); err != nil {
		return err
	}
	err = fn(f, t)
	return errors.Join(err, w.o.result(f.Close()))
}

func (w *worker) create() error {
	if names, _ := w.mine(); len(names) > maxEntries {
		return w.unlink()
	}
	t := w.free()
	t.obj = newObject(false, 0o600)
	return w.make(t, func(f *os.File) error { return w.writeAt(f, t, 0, w.length()) })
}

// make creates a file and calls fn.
func (w *worker) make(t target, fn func(f *os.File) error) error {
	var f *os.File
	err := w.o.change(func(c *call) {
		w.note(t.obj, "create %s", t.full())
		ask(c, t.dir.name(t.name), t.obj)
	}, func() (err error) {
		if f, err = os.OpenFile(w.at(t.full()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
		return w.o.identify(t.obj, w.at(t.full()))
	})
	if f == nil {
		return err
	}
	if err == nil {
		err = fn(f)
	}
	return errors.Join(err, w.o.result(f.Close()))
}

func (w *worker) writeAt(f *os.File, t target, off int64, n int) error {
	p := content(w.op, off, n)
	return w.o.change(func(c *call) {
		w.note(t.obj, "write %d at %d", n, off)
		t.obj.write(c, off, p)
	}, func() error { _, err := f.WriteAt(p, off); return err })
}

func (w *worker) size(f *object) int64 {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	return f.size.last().size
}

func (w *worker) write() error {
	return w.withFile(0, func(f *os.File, t target) error {
		for range 1 + w.rng.IntN(3) {
			if err := w.writeAt(f, t, w.offset(w.size(t.obj)), w.length()); err != nil {
				return err
			}
		}
		if w.rng.IntN(4) == 0 {
			return w.syncFile(f, t)
		}
		return nil
	})
}

func (w *worker) append() error {
	return w.withFile(0, func(f *os.File, t target) error { return w.writeAt(f, t, w.size(t.obj), w.length()) })
}

// log writes as a database's log is written.
func (w *worker) log() error {
	return w.withFile(0, func(f *os.File, t target) error {
		for range 3 + w.rng.IntN(10) {
			if err := w.writeAt(f, t, w.size(t.obj), 1+w.rng.IntN(2000)); err != nil {
				return err
			}
			if err := w.dataSync(f, t); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *worker) syncedWrite() error {
	return w.withFile(unix.O_DSYNC, func(f *os.File, t target) error {
		off, n := w.offset(w.size(t.obj)), w.length()
		if err := w.writeAt(f, t, off, n); err != nil {
			return err
		}
		return w.o.sync(func() error { return nil }, func(then uint64) { t.obj.syncRange(then, off, int64(n)) })
	})
}

func (w *worker) mmap() error {
	return w.withFile(0, func(f *os.File, t target) error {
		size := w.size(t.obj)
		if size < blockSize {
			return nil
		}
		off := w.rng.Int64N(size) &^ (blockSize - 1)
		n := min(size-off, int64(w.length()))
		return w.store(f, t, off, content(w.op, off, int(n)))
	})
}

// store writes through a mapping.
func (w *worker) store(f *os.File, t target, off int64, p []byte) error {
	m, err := unix.Mmap(int(f.Fd()), off, len(p), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err = w.o.result(err); err != nil {
		return err
	}
	defer unix.Munmap(m)
	err = w.o.change(func(c *call) {
		w.note(t.obj, "store %d at %d", len(p), off)
		t.obj.write(c, off, p)
	}, func() error { return copyMapped(m, p) })
	if err != nil || w.rng.IntN(3) == 0 {
		return err
	}
	return w.o.sync(func() error { return unix.Msync(m, unix.MS_SYNC) }, func(then uint64) {
		w.note(t.obj, "msync")
		t.obj.syncRange(then, off, int64(len(p)))
	})
}

// copyMapped copies to a mapping, which may fail when the power is cut.
func copyMapped(m, p []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("store to a mapping: %v", r)
		}
	}()
	copy(m, p)
	return nil
}

func (w *worker) truncate() error {
	return w.withFile(0, func(f *os.File, t target) error {
		size := w.rng.Int64N(w.size(t.obj) + 1)
		switch w.rng.IntN(4) {
		case 0:
			size = 0
		case 1:
			size += int64(w.length())
		}
		return w.o.change(func(c *call) {
			w.note(t.obj, "truncate to %d", size)
			t.obj.truncate(c, size)
		}, func() error { return f.Truncate(size) })
	})
}

func (w *worker) punch() error {
	return w.withFile(0, func(f *os.File, t target) error {
		off := w.offset(w.size(t.obj))
		n := int64(w.length())
		mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		if w.rng.IntN(3) == 0 {
			mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
		}
		return w.o.change(func(c *call) {
			w.note(t.obj, "zero %d at %d (mode %x)", n, off, mode)
			t.obj.zero(c, off, off+n)
		}, func() error { return unix.Fallocate(int(f.Fd()), mode, off, n) })
	})
}

func (w *worker) fallocate() error {
	return w.withFile(0, func(f *os.File, t target) error {
		off, n := w.size(t.obj), int64(w.length())
		return w.o.change(func(c *call) {
			w.note(t.obj, "fallocate %d at %d", n, off)
			t.obj.allocate(c, off+n)
		}, func() error { return unix.Fallocate(int(f.Fd()), 0, off, n) })
	})
}

// makeCommonFile makes the file in which every worker has its own blocks.
func (w *worker) makeCommonFile() error {
	t := target{place: place{w.common, "common"}, name: "file", obj: newObject(false, 0o600)}
	err := w.make(t, func(f *os.File) error {
		if err := w.writeAt(f, t, 0, commonBlocks*blockSize); err != nil {
			return err
		}
		return w.syncFile(f, t)
	})
	if err != nil {
		return err
	}
	return w.syncDir(t.place)
}

// commonFile writes blocks of the common file; its fsync is for the other workers' blocks too.
func (w *worker) commonFile() error {
	w.o.mu.Lock()
	t := target{place{w.common, "common"}, "file", w.common.entry("file")}
	w.o.mu.Unlock()
	return w.open(t, 0, func(f *os.File, t target) error {
		for range 1 + w.rng.IntN(4) {
			n := int64(w.rng.IntN(commonBlocks/w.of)*w.of + w.id)
			if err := w.writeAt(f, t, n*blockSize, blockSize); err != nil {
				return err
			}
		}
		if w.rng.IntN(2) == 0 {
			return w.dataSync(f, t)
		}
		return nil
	})
}

func (w *worker) fsync() error     { return w.withFile(0, w.syncFile) }
func (w *worker) fdatasync() error { return w.withFile(0, w.dataSync) }

func (w *worker) syncFile(f *os.File, t target) error {
	return w.o.sync(f.Sync, func(then uint64) { w.note(t.obj, "fsync"); t.obj.sync(then, false) })
}

func (w *worker) dataSync(f *os.File, t target) error {
	return w.o.sync(func() error { return unix.Fdatasync(int(f.Fd())) },
		func(then uint64) { w.note(t.obj, "fdatasync"); t.obj.sync(then, true) })
}
