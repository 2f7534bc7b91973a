package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// destDir is a directory of the destination. It stays open while something in it is still to be done; then it gets its attributes.
//
// Everything is done through its descriptor with a name of one element that is never followed: so nothing leaves the destination,
// whatever the snapshot and the destination hold.
type destDir struct {
	r       *restorer
	parent  *destDir // nil: Dest itself
	name    string
	fd      int // -1: it doesn't exist, in a dry run
	dev     uint64
	fsync   bool // its filesystem's syncfs doesn't wait
	inode   tree.Inode
	set     bool // it gets the attributes of inode
	late    bool // in step 3
	pending atomic.Int64
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY

// checkName refuses names that lead elsewhere.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is no name of a file", name)
	}
	return nil
}

// openAt opens an entry, which may be a symbolic link only with O_PATH.
func openAt(dir int, name string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	err = retry(func() error {
		fd, err = unix.Openat2(dir, name, &how)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return fd, nil
}

// retry repeats a system call that a signal ended.
func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openDest checks the destination, makes it if it is missing, and opens it.
func (r *restorer) openDest(sel selection) error {
	in, err := r.from.Inode(r.ctx, r.from.Root())
	if err != nil {
		return unreadable(err)
	}
	r.root = &destDir{r: r, name: r.opts.Dest, fd: -1, inode: in, set: sel == nil}
	r.root.pending.Store(1)
	if !filepath.IsAbs(r.opts.Dest) {
		return errors.New("the destination must be an absolute path")
	}
	if err := r.guard(); err != nil {
		return err
	}
	if !r.opts.DryRun {
		if err := os.MkdirAll(r.opts.Dest, 0o700); err != nil {
			return fmt.Errorf("make the destination: %w", err)
		}
	}
	fd, err := unix.Open(r.opts.Dest, dirFlags|unix.O_CLOEXEC, 0)
	switch {
	case r.opts.DryRun && errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("the destination is not a directory: %w", err)
	case err != nil:
		return fmt.Errorf("open the destination: %w", err)
	}
	r.root.fd = fd
	if err := r.checkAbove(fd); err != nil {
		return err
	}
	return r.root.enter()
}

func (r *restorer) closeDest() {
	for _, fd := range r.devices {
		unix.Close(fd)
	}
	if r.root.fd >= 0 {
		unix.Close(r.root.fd)
	}
}

// guard learns the protected directories, and refuses a destination inside of one before anything is made there.
func (r *restorer) guard() error {
	r.guarded = make(map[fileID]string)
	for _, p := range r.opts.Protect {
		var st unix.Stat_t
		err := unix.Stat(p, &st)
		if err == nil {
			r.guarded[fileID{st.Dev, st.Ino}] = p
		} else if !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "stat", Path: p, Err: err}
		}
	}
	for p := filepath.Clean(r.opts.Dest); ; p = filepath.Dir(p) {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && p != "/" {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: p, Err: err}
		}
		defer unix.Close(fd)
		return r.checkAbove(fd)
	}
}

// checkAbove refuses a directory that is a protected one or lies in one.
func (r *restorer) checkAbove(fd int) error {
	at, last := fd, fileID{}
	for {
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			return err
		}
		id := fileID{st.Dev, st.Ino}
		if p, ok := r.guarded[id]; ok {
			return fmt.Errorf("%w: %s", ErrProtected, p)
		}
		if id == last {
			break // the root is its own parent
		}
		up, err := unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("look at the directories above: %w", err)
		}
		if at != fd {
			unix.Close(at)
		}
		at, last = up, id
	}
	if at != fd {
		unix.Close(at)
	}
	return nil
}

// fileID is what tells a file of this host from others.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{st.Dev, st.Ino} }

// enter refuses protected directories, sees how its filesystem is synced, and makes sure that one can work in it.
func (d *destDir) enter() error {
	if d.fd < 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	if p, ok := d.r.guarded[idOf(&st)]; ok {
		return fmt.Errorf("%w: %s", ErrProtected, p)
	}
	d.dev = st.Dev
	if d.parent != nil && d.parent.dev == d.dev {
		d.fsync = d.parent.fsync
	} else if err := d.newDevice(); err != nil {
		return err
	}
	if mode := st.Mode & 0o7777; d.set && !d.r.opts.DryRun && mode&0o700 != 0o700 && d.r.euid != 0 {
		return unix.Fchmod(d.fd, mode|0o700)
	}
	return nil
}

func (d *destDir) newDevice() error {
	var sf unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &sf); err != nil {
		return err
	}
	d.fsync = sf.Type == unix.FUSE_SUPER_MAGIC
	if _, ok := d.r.devices[d.dev]; ok {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d.r.devices[d.dev] = fd
	return nil
}

// done takes back one reason to keep the directory open. After the last one it gets its attributes, unless it is late.
func (d *destDir) done() {
	if d.pending.Add(-1) > 0 || d.parent == nil {
		return // Dest itself is the last
	}
	if !d.late {
		d.finish()
	}
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
	d.parent.done()
}

// finish sets attributes.
func (d *destDir) finish() {
	if d.fd < 0 || !d.set || d.r.opts.DryRun || d.r.stopped() {
		return
	}
	err := d.r.setAttr(attrTarget{fd: d.fd}, &d.inode, destName{d, "."})
	if err == nil && d.fsync {
		err = unix.Fsync(d.fd)
	}
	d.problem(".", err)
}

// destName is an entry of a directory. Its path is made only where it is told: in deep trees that takes longer than the restoring.
type destName struct {
	dir  *destDir
	name string
}

func (n destName) path() string { return n.dir.path(n.name) }

// problem notes what keeps an entry from being restored, if anything does.
func (d *destDir) problem(name string, err error) {
	if err != nil {
		d.r.problem(RestoreProblem{at: destName{d, name}, Err: err})
	}
}

// path is that of an entry, below the destination.
func (d *destDir) path(name string) string {
	elems := []string{name}
	for ; d.parent != nil; d = d.parent {
		elems = append(elems, d.name)
	}
	slices.Reverse(elems)
	return path.Join(elems...)
}

// with opens a directory again that was done with, by way of those above it.
func (d *destDir) with(fn func(again *destDir) error) error {
	if d.parent == nil || d.fd < 0 {
		return fn(d)
	}
	var names []string
	top := d
	for ; top.parent != nil; top = top.parent {
		names = append(names, top.name)
	}
	at := top.fd
	for i := len(names) - 1; i >= 0; i-- {
		fd, err := openAt(at, names[i], dirFlags, 0)
		if at != top.fd {
			unix.Close(at)
		}
		if err != nil {
			return err
		}
		at = fd
	}
	defer unix.Close(at)
	return fn(&destDir{r: d.r, parent: d.parent, name: d.name, fd: at, dev: d.dev, fsync: d.fsync, inode: d.inode, set: d.set})
}

// stat gives an entry's attributes; ok is false if there is none.
func (d *destDir) stat(name string) (st unix.Stat_t, ok bool, err error) {
	if d.fd < 0 {
		return st, false, nil
	}
	err = retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	if err != nil {
		return st, false, fmt.Errorf("stat: %w", err)
	}
	return st, true, nil
}
