package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// destFile is a regular file whose content is being restored, by several goroutines if it is large.
type destFile struct {
	r    *restorer
	src  TreeFile
	fd   int   // -1: it doesn't exist, in a dry run
	old  bool  // it was there, with content to compare
	was  int64 // its size then
	size int64 // what it gets

	mu struct {
		sync.Mutex
		err     error // of the destination: ends the file
		damaged error // the first of the source
		ranges  []Range
	}
}

// file restores a regular file. One that is there is kept if it has so many names.
func (r *restorer) file(d *destDir, name string, in *tree.Inode, links uint64) (p RestoreProblem) {
	src, err := r.from.Open(r.ctx, in.Ino)
	if err != nil {
		return RestoreProblem{Err: unreadable(err)}
	}
	defer src.Close()
	f := &destFile{r: r, src: src, fd: -1, size: in.Size}
	if err := f.open(d, name, links); err != nil {
		return RestoreProblem{Err: err}
	}
	if f.fd >= 0 {
		defer unix.Close(f.fd)
	}
	if err := f.content(); err != nil {
		return RestoreProblem{Err: err}
	}
	if !r.opts.DryRun {
		if err := r.setAttr(attrTarget{fd: f.fd}, in, destName{d, name}); err != nil {
			return RestoreProblem{Err: err}
		}
	}
	if f.mu.damaged != nil {
		return r.keepDamaged(d, name, f)
	}
	if d.fsync && !r.opts.DryRun {
		if err := unix.Fsync(f.fd); err != nil {
			return RestoreProblem{Err: fmt.Errorf("write to the disk: %w", err)}
		}
	}
	r.files.Add(1)
	r.bytes.Add(in.Size)
	r.progress(0)
	return RestoreProblem{}
}

// open opens the file, or makes it anew where there is none, something else, or one that may be somebody else's too.
func (f *destFile) open(d *destDir, name string, links uint64) error {
	st, ok, err := d.stat(name)
	if err != nil {
		return err
	}
	if ok && st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Nlink) == links {
		kept, err := f.keep(d, name, &st)
		if kept || err != nil {
			return err
		}
	}
	if ok {
		if err := f.r.vacate(d, name, &st); err != nil {
			return err
		}
	}
	if f.r.opts.DryRun {
		return nil
	}
	if f.fd, err = openAt(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err != nil {
		return err
	}
	return f.resize()
}

// keep opens a file that is there; false if that can't be written to, which is replaced then.
func (f *destFile) keep(d *destDir, name string, st *unix.Stat_t) (bool, error) {
	flags := unix.O_RDWR
	if f.r.opts.DryRun {
		flags = unix.O_RDONLY
	}
	fd, err := openAt(d.fd, name, flags|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ETXTBSY) {
		return false, nil // as with a file that is being executed: whoever does keeps the old one
	}
	if err != nil {
		return false, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || idOf(&now) != idOf(st) {
		unix.Close(fd)
		return false, errors.Join(err, errors.New("somebody else changes the destination"))
	}
	f.fd, f.old, f.was = fd, true, now.Size
	if f.r.opts.DryRun || now.Size == f.size {
		return true, nil
	}
	return true, f.resize()
}

func (f *destFile) resize() error {
	err := retry(func() error { return unix.Ftruncate(f.fd, f.size) })
	if err != nil {
		unix.Close(f.fd)
		return fmt.Errorf("set the size to %d bytes: %w", f.size, err)
	}
	return nil
}

// fail notes the first error of the destination.
func (f *destFile) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.err == nil {
		f.mu.err = err
	}
}

func (f *destFile) failed() error {
	if f.r.stopped() {
		return context.Cause(f.r.ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

// damage notes what can't be read.
func (f *destFile) damage(off, n int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.damaged == nil {
		f.mu.damaged = err
	}
	f.mu.ranges = append(f.mu.ranges, Range{off, n})
}

// keepDamaged gives a damaged file a name that tells.
func (r *restorer) keepDamaged(d *destDir, name string, f *destFile) RestoreProblem {
	p := RestoreProblem{Ranges: joinRanges(f.mu.ranges), Err: unreadable(f.mu.damaged)}
	bad := int64(0)
	for _, g := range p.Ranges {
		bad += g.Len
	}
	p.Err = fmt.Errorf("%d of %d bytes, the first at %d: %w", bad, f.size, p.Ranges[0].Off, p.Err)
	if r.opts.DryRun {
		return p
	}
	kept, err := r.damagedName(d, name)
	if err == nil {
		err = unix.Renameat(d.fd, name, d.fd, kept)
	}
	if err != nil { // then it must go
		err = errors.Join(fmt.Errorf("keep what could be read: %w", err), d.unlink(name, 0))
		p.Err = errors.Join(p.Err, err)
		return p
	}
	p.Kept = d.path(kept)
	return p
}

const damagedSuffix = ".damaged"

// damagedName is NAME.damaged, shortened where it would be too long, numbered if the snapshot has that name already.
func (r *restorer) damagedName(d *destDir, name string) (string, error) {
	for i := range 100 {
		suffix := damagedSuffix
		if i > 0 {
			suffix = fmt.Sprintf("%s%d", damagedSuffix, i)
		}
		stem := name[:min(len(name), 255-len(suffix))]
		for len(stem) > 0 && len(stem) < len(name) && !utf8.RuneStart(name[len(stem)]) {
			stem = stem[:len(stem)-1]
		}
		st, ok, err := d.stat(stem + suffix)
		if err != nil {
			return "", err
		}
		if _, err := r.from.Lookup(r.ctx, d.inode.Ino, stem+suffix); err == nil || ok && st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		return stem + suffix, nil
	}
	return "", unix.EEXIST
}

// joinRanges sorts ranges and joins those that touch.
func joinRanges(in []Range) (out []Range) {
	slices.SortFunc(in, func(a, b Range) int {
		if a.Off < b.Off {
			return -1
		}
		return 1
	})
	for _, g := range in {
		if k := len(out); k > 0 && out[k-1].Off+out[k-1].Len >= g.Off {
			out[k-1].Len = max(out[k-1].Len, g.Off+g.Len-out[k-1].Off)
			continue
		}
		out = append(out, g)
	}
	return out
}
