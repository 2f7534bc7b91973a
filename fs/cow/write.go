package cow

import (
	"syscall"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
)

// enter enters the gate and returns the epoch that runs until leave.
func (v *Volume) enter() (*running, error) {
	v.gate.enter()
	if v.closed.Load() {
		v.gate.leave()
		return nil, syscall.EIO
	}
	return v.run.Load(), nil
}

// Write writes to a file, like pwrite(2).
func (v *Volume) Write(ino uint64, p []byte, off int64, fl WriteFlags) (int, error) {
	first, n := span(off, int64(len(p)))
	r, err := v.enter()
	if err != nil {
		return 0, err
	}
	st := r.state(ino)
	if in := st.in.Load(); in == nil || !st.fresh.Load() && !in.Blocks(first, n) {
		v.gate.leave()
		if r, err = v.begin(wantRange(ino, off, int64(len(p)))); err != nil {
			return 0, err
		}
		st = r.state(ino)
		if err = v.markBlocks(r, st, first, n); err != nil {
			v.gate.leave()
			return 0, err
		}
	}
	defer v.gate.leave()
	if fl.KillPriv {
		if err := v.tree.KillPriv(fl.Caller, ino); err != nil {
			return 0, err
		}
	}
	done, err := v.tree.WriteAt(ino, p, off)
	r.changed(st)
	return done, err
}

// Setattr changes attributes, the size among them.
func (v *Volume) Setattr(c Caller, ino uint64, in SetAttr) (Attr, error) {
	w := want{ino: ino}
	if in.Valid&backing.SetSize != 0 {
		a, err := v.tree.Stat(ino)
		if err != nil {
			return Attr{}, err
		}
		w = wantRange(ino, in.Size, a.Size-in.Size)
	}
	r, err := v.begin(w)
	if err != nil {
		return Attr{}, err
	}
	defer v.gate.leave()
	st := r.state(ino)
	if _, err := v.touch(r, st); err != nil {
		return Attr{}, err
	}
	if in.Valid&backing.SetSize != 0 {
		if err := v.markCut(r, st, in.Size); err != nil {
			return Attr{}, err
		}
	}
	a, err := v.tree.Setattr(c.Caller, ino, in)
	r.changed(st)
	return a, err
}

// markCut marks what a file loses when it is cut to size; growing changes the last block at most.
func (v *Volume) markCut(r *running, st *inodeState, size int64) error {
	a, err := v.tree.Stat(st.ino)
	if err != nil || size < 0 || size == a.Size || a.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return err
	}
	if err := v.markLast(r, st, size); err != nil || size > a.Size {
		return err
	}
	v.announceInside(r, wantRange(st.ino, size, a.Size-size))
	return v.markData(r, st, size, a.Size)
}

// markLast marks the last block of a file that gets another size: sealing looks at it, whether it changes or not.
func (v *Volume) markLast(r *running, st *inodeState, size int64) error {
	if size <= 0 {
		return nil
	}
	return v.markBlocks(r, st, uint64(size-1)/blockSize, 1)
}

// announceInside announces what could not be known before the gate was entered.
func (v *Volume) announceInside(r *running, w want) {
	if !r.announced([]want{w}) {
		v.announce(r, []want{w})
	}
}

func (v *Volume) markData(r *running, st *inodeState, off, end int64) error {
	return v.forData(st.ino, off, end, func(first, n uint64) error { return v.markBlocks(r, st, first, n) })
}

// maxShift bounds, in blocks, what is marked one by one when a file's end moves to other offsets.
const maxShift = 4 << 20

// markAll marks all of [off, end), holes too: they may become data. A range of terabytes makes the whole content dirty.
func (v *Volume) markAll(r *running, st *inodeState, off, end int64) error {
	first, n := span(off, end-off)
	if n <= maxShift {
		return v.markBlocks(r, st, first, n)
	}
	if err := v.markData(r, st, off, end); err != nil {
		return err
	}
	in, err := v.touch(r, st)
	if err != nil {
		return err
	}
	if ns := v.needs(st, in.Gen()); len(ns) > 0 {
		v.loseAll(ns, errTooMany) // the holes' preimages alone would be gigabytes
	}
	in.MarkContent()
	return nil
}

// Fallocate is fallocate(2) in all modes that the backing has.
func (v *Volume) Fallocate(c Caller, ino uint64, mode uint32, off, n int64) (err error) {
	if off < 0 || n <= 0 || off+n < 0 {
		return syscall.EINVAL
	}
	a, err := v.tree.Stat(ino)
	if err != nil {
		return err
	}
	w := want{ino: ino}
	if from, to, _ := affected(mode, off, n, a.Size); to > from {
		w = wantRange(ino, from, to-from)
	}
	r, err := v.begin(w)
	if err != nil {
		return err
	}
	defer v.gate.leave()
	st := r.state(ino)
	if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		// These move what a second run would move again.
		done, end := v.journal.begin(c, entry{Op: opShift, A: ino}, v.shiftDone)
		if done {
			return nil
		}
		defer func() { end(err == nil) }()
	}
	if err := v.markFallocate(r, st, mode, off, n); err != nil {
		return err
	}
	err = v.tree.Fallocate(ino, mode, off, n)
	r.changed(st)
	return err
}

func (v *Volume) markFallocate(r *running, st *inodeState, mode uint32, off, n int64) error {
	if _, err := v.touch(r, st); err != nil {
		return err
	}
	a, err := v.tree.Stat(st.ino)
	if err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 && off+n > a.Size {
		if err := v.markLast(r, st, off+n); err != nil {
			return err
		}
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) == 0 {
		if err := v.saveHoles(r, st, off, min(off+n, a.Size)); err != nil {
			return err
		}
	}
	from, to, holes := affected(mode, off, n, a.Size)
	if to <= from {
		return nil
	}
	v.announceInside(r, wantRange(st.ino, from, to-from))
	if holes {
		return v.markAll(r, st, from, to)
	}
	return v.markData(r, st, from, to)
}

// affected tells which bytes of a file of size bytes get another content by fallocate, and whether holes do too.
func affected(mode uint32, off, n, size int64) (from, to int64, holes bool) {
	switch {
	case mode&unix.FALLOC_FL_COLLAPSE_RANGE != 0:
		return off, size, true
	case mode&unix.FALLOC_FL_INSERT_RANGE != 0:
		return off, size + n, true
	case mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0:
		return off, min(off+n, size), false
	}
	return 0, 0, false
}

// CopyRange is copy_file_range(2). It returns how many bytes were copied.
func (v *Volume) CopyRange(src uint64, soff int64, dst uint64, doff int64, n int) (int, error) {
	a, err := v.tree.Stat(src)
	if err != nil {
		return 0, err
	}
	if n = int(min(int64(n), max(a.Size-soff, 0))); n == 0 {
		return 0, nil
	}
	r, err := v.begin(wantRange(dst, doff, int64(n)))
	if err != nil {
		return 0, err
	}
	defer v.gate.leave()
	st := r.state(dst)
	first, blocks := span(doff, int64(n))
	if err := v.markBlocks(r, st, first, blocks); err != nil {
		return 0, err
	}
	if _, err := v.touch(r, st); err != nil {
		return 0, err
	}
	done, err := v.tree.CopyRange(src, soff, dst, doff, n)
	r.changed(st)
	return done, err
}

// Fsync is fsync(2), or fdatasync(2). It never meets the gate.
func (v *Volume) Fsync(ino uint64, datasync bool) error { return v.tree.Fsync(ino, datasync) }

// StartSync begins an fdatasync(2) and returns; wait returns its result, and must be called. It never meets the gate.
func (v *Volume) StartSync(ino uint64) (wait func() error, err error) { return v.tree.StartSync(ino) }

// FsyncDir is fsync(2) of a directory.
func (v *Volume) FsyncDir(ino uint64, datasync bool) error { return v.tree.FsyncDir(ino, datasync) }

// Release takes back one OpenFile.
func (v *Volume) Release(ino uint64, write bool) { v.tree.CloseFile(ino, write) }

// change runs act, which changes an inode's attributes only.
func (v *Volume) change(ino uint64, act func() error) error {
	r, err := v.begin(want{ino: ino})
	if err != nil {
		return err
	}
	defer v.gate.leave()
	st := r.state(ino)
	if _, err := v.touch(r, st); err != nil {
		return err
	}
	err = act()
	r.changed(st)
	return err
}

// Setxattr is setxattr(2).
func (v *Volume) Setxattr(c Caller, ino uint64, name string, val []byte, flags int) error {
	err := v.change(ino, func() error { return v.tree.Setxattr(ino, name, val, flags) })
	if c.Resent && err == syscall.EEXIST {
		got := make([]byte, len(val)+1)
		if n, gerr := v.tree.Getxattr(ino, name, got); gerr == nil && string(got[:n]) == string(val) {
			return nil
		}
	}
	return err
}

// Removexattr is removexattr(2).
func (v *Volume) Removexattr(c Caller, ino uint64, name string) error {
	err := v.change(ino, func() error { return v.tree.Removexattr(ino, name) })
	if c.Resent && err == syscall.ENODATA {
		return nil
	}
	return err
}
