package input

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// changer makes random changes below a directory, and hides them as far as somebody can who may call utimensat: every modification time is
// what it was, also that of the directories, and files that are replaced keep their sizes.
type changer struct {
	dir string
	rng *rand.Rand
	ops []func(c *changer) error
	log []string

	reused int // files that got the inode number of the one they replaced
}

func newChanger(dir string, rng *rand.Rand) *changer {
	return &changer{dir: dir, rng: rng, ops: []func(*changer) error{
		(*changer).edit, (*changer).edit, (*changer).mapped, (*changer).grow, (*changer).cutAndGrow, (*changer).punch, (*changer).allocate,
		(*changer).replace, (*changer).reuse, (*changer).reuse, (*changer).copyOver, (*changer).exchange, (*changer).exchange,
		(*changer).link, (*changer).unlink, (*changer).moveFile, (*changer).moveDir, (*changer).newDir, (*changer).replaceDir, (*changer).removeDir,
		(*changer).newFile, (*changer).newFile, (*changer).special, (*changer).symlink, (*changer).attributes, (*changer).xattr, (*changer).xattr,
	}}
}

// run makes n changes.
func (c *changer) run(n int) error {
	for range n {
		if err := c.ops[c.rng.IntN(len(c.ops))](c); err != nil {
			return fmt.Errorf("%w; last changes: %s", err, strings.Join(c.log[max(0, len(c.log)-10):], "; "))
		}
	}
	return nil
}

// history is what was done, for a failed test's log.
func (c *changer) history() string { return strings.Join(c.log, "\n") }

func (c *changer) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

// pick gives the path of something of a type; "" if there is none.
func (c *changer) pick(typ fs.FileMode) string {
	var paths []string
	filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == typ {
			paths = append(paths, p)
		}
		return err
	})
	if len(paths) == 0 {
		return ""
	}
	return paths[c.rng.IntN(len(paths))]
}

// place gives a free name.
func (c *changer) place() string {
	return filepath.Join(c.pick(fs.ModeDir), fmt.Sprintf("n%08x", c.rng.Uint32()))
}

func (c *changer) bytes(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(c.rng.Uint32())
	}
	return p
}

// hidden runs fn and puts back the modification times of the paths and of their directories, as far as they are still there.
func hidden(fn func() error, paths ...string) error {
	was := map[string]unix.Timespec{}
	for _, p := range paths {
		for _, p := range []string{p, filepath.Dir(p)} {
			var st unix.Stat_t
			if unix.Lstat(p, &st) == nil {
				was[p] = st.Mtim
			}
		}
	}
	err := fn()
	for p, at := range was {
		again := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, at}, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(again, unix.ENOENT) {
			err = errors.Join(err, again)
		}
	}
	return err
}

// inFile opens a random file for fn. Files without content get some.
func (c *changer) inFile(what string, fn func(f *os.File, size int64) error) error {
	p := c.pick(0)
	if p == "" {
		return c.newFile()
	}
	c.note("%s %s", what, p)
	return hidden(func() error {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return fn(f, st.Size())
	}, p)
}

func (c *changer) edit() error {
	return c.inFile("edit", func(f *os.File, size int64) error {
		_, err := f.WriteAt(c.bytes(1+c.rng.IntN(9000)), c.rng.Int64N(size+1))
		return err
	})
}

func (c *changer) mapped() error {
	return c.inFile("store to a mapping of", func(f *os.File, size int64) error {
		if size == 0 {
			return nil
		}
		m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		m[c.rng.Int64N(size)]++
		return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
	})
}

func (c *changer) grow() error {
	return c.inFile("grow", func(f *os.File, size int64) error { return f.Truncate(size + c.rng.Int64N(50_000)) })
}

func (c *changer) cutAndGrow() error {
	return c.inFile("cut and grow", func(f *os.File, size int64) error {
		return errors.Join(f.Truncate(c.rng.Int64N(size+1)), f.Truncate(size))
	})
}

func (c *changer) punch() error {
	return c.inFile("punch", func(f *os.File, size int64) error {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, c.rng.Int64N(size+1), 1+c.rng.Int64N(20_000))
		return ignore(err, unix.EOPNOTSUPP)
	})
}

func (c *changer) allocate() error {
	return c.inFile("allocate", func(f *os.File, size int64) error {
		return ignore(unix.Fallocate(int(f.Fd()), 0, c.rng.Int64N(size+1), 1+c.rng.Int64N(20_000)), unix.EOPNOTSUPP)
	})
}

func ignore(err error, but ...unix.Errno) error {
	for _, e := range but {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func (c *changer) newFile() error {
	p := c.place()
	c.note("make %s", p)
	return hidden(func() error { return os.WriteFile(p, c.bytes(c.rng.IntN(60_000)), 0o640) }, p)
}

// replace puts another file of the same size in the place of one, by rename.
func (c *changer) replace() error {
	p, tmp := c.pick(0), c.place()
	if p == "" {
		return nil
	}
	c.note("replace %s", p)
	return hidden(func() error {
		st, err := os.Stat(p)
		if err == nil {
			err = os.WriteFile(tmp, c.bytes(int(min(st.Size(), 1<<20))), st.Mode())
		}
		return errors.Join(err, os.Truncate(tmp, st.Size()), os.Rename(tmp, p))
	}, p)
}

// reuse removes a file and makes one of the same size in its place, which ext4 gives the same inode number.
func (c *changer) reuse() error {
	p := c.pick(0)
	if p == "" {
		return nil
	}
	c.note("remove and make again %s", p)
	return hidden(func() error {
		var was, is unix.Stat_t
		err := errors.Join(unix.Stat(p, &was), unix.Unlink(p))
		if err == nil {
			err = os.WriteFile(p, c.bytes(int(min(was.Size, 1<<20))), fs.FileMode(was.Mode&0o777))
		}
		err = errors.Join(err, os.Truncate(p, was.Size), os.Chown(p, int(was.Uid), int(was.Gid)), unix.Stat(p, &is))
		if was.Ino == is.Ino {
			c.reused++
		}
		return err
	}, p)
}

// copyOver restores a file or a directory as a backup program does: a copy with all attributes comes into its place.
func (c *changer) copyOver() error {
	p, tmp, old := c.pick([]fs.FileMode{0, fs.ModeDir}[c.rng.IntN(2)]), c.place(), c.place()
	if p == "" || p == c.dir || strings.HasPrefix(tmp, p+"/") || strings.HasPrefix(old, p+"/") {
		return nil
	}
	c.note("copy over %s", p)
	return hidden(func() error {
		return errors.Join(command("cp", "-a", p, tmp), os.Rename(p, old), os.Rename(tmp, p), os.RemoveAll(old))
	}, p, old, tmp)
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

func (c *changer) exchange() error {
	typ := []fs.FileMode{0, 0, fs.ModeDir}
	a, b := c.pick(typ[c.rng.IntN(3)]), c.pick(typ[c.rng.IntN(3)])
	if a == "" || b == "" || strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/") {
		return nil
	}
	c.note("exchange %s and %s", a, b)
	return hidden(func() error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) }, a, b)
}

func (c *changer) link() error {
	p, to := c.pick(0), c.place()
	if p == "" {
		return nil
	}
	c.note("link %s to %s", to, p)
	return hidden(func() error { return os.Link(p, to) }, p, to)
}

func (c *changer) unlink() error {
	p := c.pick([]fs.FileMode{0, 0, fs.ModeSymlink, fs.ModeNamedPipe}[c.rng.IntN(4)])
	if p == "" {
		return nil
	}
	c.note("unlink %s", p)
	return hidden(func() error { return os.Remove(p) }, p)
}

func (c *changer) moveFile() error {
	p, to := c.pick(0), c.place()
	if p == "" {
		return nil
	}
	c.note("move %s to %s", p, to)
	return hidden(func() error { return os.Rename(p, to) }, p, to)
}

func (c *changer) moveDir() error {
	p, to := c.pick(fs.ModeDir), c.place()
	if p == c.dir || strings.HasPrefix(to, p+"/") {
		return nil
	}
	c.note("move %s to %s", p, to)
	return hidden(func() error { return os.Rename(p, to) }, p, to)
}

func (c *changer) newDir() error {
	p := c.place()
	c.note("make directory %s", p)
	return hidden(func() error { return os.Mkdir(p, 0o750) }, p)
}

// replaceDir gives a directory's name to a new one that has the same entries.
func (c *changer) replaceDir() error {
	p, tmp := c.pick(fs.ModeDir), c.place()
	if p == c.dir || strings.HasPrefix(tmp, p+"/") {
		return nil
	}
	c.note("replace directory %s", p)
	return hidden(func() error {
		list, err := os.ReadDir(p)
		err = errors.Join(err, os.Mkdir(tmp, 0o750))
		for _, e := range list {
			err = errors.Join(err, os.Rename(filepath.Join(p, e.Name()), filepath.Join(tmp, e.Name())))
		}
		return errors.Join(err, os.Remove(p), os.Rename(tmp, p))
	}, p, tmp)
}

// removeDir keeps the tree from growing for ever.
func (c *changer) removeDir() error {
	p := c.pick(fs.ModeDir)
	if p == c.dir || c.rng.IntN(3) > 0 {
		return nil
	}
	c.note("remove directory %s", p)
	return hidden(func() error { return os.RemoveAll(p) }, p)
}

func (c *changer) special() error {
	p := c.place()
	c.note("make special %s", p)
	return hidden(func() error {
		if c.rng.IntN(2) == 0 || os.Geteuid() != 0 {
			return unix.Mkfifo(p, 0o600)
		}
		return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, c.rng.Uint32N(20))))
	}, p)
}

// symlink makes a link, or gives another target of the same length to one that is there.
func (c *changer) symlink() error {
	p := c.pick(fs.ModeSymlink)
	if p == "" || c.rng.IntN(2) == 0 {
		p = c.place()
	}
	c.note("symlink %s", p)
	return hidden(func() error {
		return errors.Join(ignore(unix.Unlink(p), unix.ENOENT), os.Symlink(fmt.Sprintf("to/%08x", c.rng.Uint32()), p))
	}, p)
}

func (c *changer) attributes() error {
	p := c.pick([]fs.FileMode{0, fs.ModeDir, fs.ModeNamedPipe}[c.rng.IntN(3)])
	if p == "" {
		return nil
	}
	c.note("chmod, chown %s", p)
	var err error
	if os.Geteuid() == 0 {
		err = os.Lchown(p, c.rng.IntN(3), c.rng.IntN(3))
	}
	return errors.Join(err, os.Chmod(p, fs.FileMode(0o700|c.rng.IntN(0o100))))
}

func (c *changer) xattr() error {
	p := c.pick([]fs.FileMode{0, fs.ModeDir}[c.rng.IntN(2)])
	if p == "" {
		return nil
	}
	name := fmt.Sprintf("user.%d", c.rng.IntN(3))
	c.note("xattr %s of %s", name, p)
	if c.rng.IntN(3) == 0 {
		return ignore(unix.Removexattr(p, name), unix.ENODATA, unix.EOPNOTSUPP)
	}
	return ignore(unix.Setxattr(p, name, c.bytes(c.rng.IntN(300)), 0), unix.EOPNOTSUPP)
}
