package fs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actor runs system calls as one user, on a thread of its own.
type actor struct {
	work chan func()
	fds  map[string]int
	seen map[string]unix.Stat_t
}

type user struct {
	uid, gid int
	groups   []int
	umask    int
}

func newActor(t testing.TB, u user) *actor {
	t.Helper()
	a := &actor{work: make(chan func()), fds: map[string]int{}, seen: map[string]unix.Stat_t{}}
	ready := make(chan error)
	go ownThread(func() {
		ready <- assume(u)
		for fn := range a.work {
			fn()
		}
	})
	if err := <-ready; err != nil {
		t.Fatal("act as another user:", err)
	}
	t.Cleanup(func() {
		a.closeAll()
		close(a.work)
	})
	return a
}

// ownThread runs fn on a thread that ends with it, and isn't the process's first one: that one's ids are what /proc tells of the process.
func ownThread(fn func()) {
	runtime.LockOSThread() // never unlocked, unless it is the first one
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() { // on another thread, since this one is taken
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}

func (a *actor) closeAll() {
	for k, fd := range a.fds {
		unix.Close(fd)
		delete(a.fds, k)
	}
	clear(a.seen)
}

func assume(u user) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	unix.Umask(u.umask)
	if u.uid == 0 {
		return nil
	}
	gs := make([]uint32, len(u.groups)+1)
	for i, g := range u.groups {
		gs[i] = uint32(g)
	}
	raw := func(nr uintptr, args ...uintptr) error {
		args = append(args, 0, 0)
		if _, _, e := unix.RawSyscall(nr, args[0], args[1], args[2]); e != 0 {
			return e
		}
		return nil
	}
	return errors.Join(
		raw(unix.SYS_SETGROUPS, uintptr(len(u.groups)), sliceAddr(gs)),
		raw(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)),
		raw(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)))
}

// run executes one command below dir and tells what came of it, in words that don't depend on dir. See do for the commands.
func (a *actor) run(dir, cmd string) (out string) {
	done := make(chan struct{})
	a.work <- func() {
		defer close(done)
		res, err := a.do(dir, strings.Fields(cmd))
		switch e := err.(type) {
		case nil:
			out = "0 " + res
		case syscall.Errno:
			out = unix.ErrnoName(e)
		default:
			out = err.Error()
		}
	}
	<-done
	return strings.TrimSpace(out)
}

func num(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

func flagsOf(s string) (f int) {
	names := map[string]int{
		"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "creat": unix.O_CREAT, "excl": unix.O_EXCL, "trunc": unix.O_TRUNC, "append": unix.O_APPEND,
		"dir": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW, "tmp": unix.O_TMPFILE, "path": unix.O_PATH, "dsync": unix.O_DSYNC,
		"direct": unix.O_DIRECT, "nonblock": unix.O_NONBLOCK,
	}
	for _, n := range strings.Split(s, ",") {
		v, ok := names[n]
		if !ok {
			panic(n)
		}
		f |= v
	}
	return f | unix.O_CLOEXEC
}

// do runs a command: its name, then its arguments. Paths are relative to dir, "@name" is a descriptor that open has left.
func (a *actor) do(dir string, c []string) (string, error) {
	p := func(i int) string {
		if strings.HasPrefix(c[i], "@") {
			return "/proc/thread-self/fd/" + strconv.Itoa(a.fds[c[i]])
		}
		return dir + "/" + c[i]
	}
	fd := func(i int) int {
		if f, ok := a.fds[c[i]]; ok {
			return f
		}
		return -1
	}
	n := func(i int) int { return num(c[i]) }
	switch c[0] {
	case "open": // open @fd path flags mode
		f, err := unix.Open(p(2), flagsOf(c[3])|unix.O_NONBLOCK, uint32(n(4)))
		if err == nil {
			if old, ok := a.fds[c[1]]; ok {
				unix.Close(old)
			}
			a.fds[c[1]] = f
		}
		return "", err
	case "close":
		err := unix.Close(fd(1))
		delete(a.fds, c[1])
		return "", err
	case "mkdir":
		return "", unix.Mkdir(p(1), uint32(n(2)))
	case "rmdir":
		return "", unix.Rmdir(p(1))
	case "unlink":
		return "", unix.Unlink(p(1))
	case "link":
		return "", unix.Link(p(1), p(2))
	case "linkfd":
		return "", unix.Linkat(unix.AT_FDCWD, p(1), unix.AT_FDCWD, p(2), unix.AT_SYMLINK_FOLLOW)
	case "symlink": // symlink target path
		return "", unix.Symlink(c[1], p(2))
	case "readlink":
		b := make([]byte, 4096)
		m, err := unix.Readlink(p(1), b)
		return string(b[:max(m, 0)]), err
	case "rename":
		return "", unix.Rename(p(1), p(2))
	case "rename2":
		return "", unix.Renameat2(unix.AT_FDCWD, p(1), unix.AT_FDCWD, p(2), uint(n(3)))
	case "mknod": // mknod path type mode major minor
		typ := map[string]uint32{"f": unix.S_IFIFO, "c": unix.S_IFCHR, "b": unix.S_IFBLK, "s": unix.S_IFSOCK, "r": unix.S_IFREG}[c[2]]
		return "", unix.Mknod(p(1), typ|uint32(n(3)), int(unix.Mkdev(uint32(n(4)), uint32(n(5)))))
	case "chmod":
		return "", unix.Chmod(p(1), uint32(n(2)))
	case "fchmod":
		return "", unix.Fchmod(fd(1), uint32(n(2)))
	case "chown":
		return "", unix.Fchownat(unix.AT_FDCWD, p(1), n(2), n(3), 0)
	case "lchown":
		return "", unix.Lchown(p(1), n(2), n(3))
	case "fchown":
		return "", unix.Fchown(fd(1), n(2), n(3))
	case "truncate":
		return "", unix.Truncate(p(1), int64(n(2)))
	case "ftruncate":
		return "", unix.Ftruncate(fd(1), int64(n(2)))
	case "pwrite": // pwrite @fd length offset
		m, err := unix.Pwrite(fd(1), []byte(strings.Repeat("x", n(2))), int64(n(3)))
		return fmt.Sprint(m), err
	case "write":
		m, err := unix.Write(fd(1), []byte(strings.Repeat("y", n(2))))
		return fmt.Sprint(m), err
	case "pread": // pread @fd length offset
		b := make([]byte, n(2))
		m, err := unix.Pread(fd(1), b, int64(n(3)))
		return fmt.Sprintf("%d %q", m, strings.TrimRight(string(b[:max(m, 0)]), "\x00")), err
	case "fallocate": // fallocate @fd mode off len
		return "", unix.Fallocate(fd(1), uint32(n(2)), int64(n(3)), int64(n(4)))
	case "copy": // copy @from off @to off len
		so, do := int64(n(2)), int64(n(4))
		m, err := unix.CopyFileRange(fd(1), &so, fd(3), &do, n(5), 0)
		return fmt.Sprint(m), err
	case "seek": // seek @fd off data|hole
		w := unix.SEEK_DATA
		if c[3] == "hole" {
			w = unix.SEEK_HOLE
		}
		off, err := unix.Seek(fd(1), int64(n(2)), w)
		return fmt.Sprint(off), err
	case "fsync":
		return "", unix.Fsync(fd(1))
	case "utimens": // utimens path atime mtime; each sec[.nsec], now or omit
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, p(1), []unix.Timespec{timeOf(c[2]), timeOf(c[3])}, unix.AT_SYMLINK_NOFOLLOW)
	case "futimens":
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, p(1), []unix.Timespec{timeOf(c[2]), timeOf(c[3])}, 0)
	case "access":
		return "", unix.Faccessat(unix.AT_FDCWD, p(1), uint32(n(2)), unix.AT_EACCESS)
	case "setxattr":
		val := []byte(c[3])
		if c[3] == fileCaps {
			val = append([]byte{0, 0, 0, 2}, make([]byte, 16)...)
		}
		return "", unix.Lsetxattr(p(1), c[2], val, n(4))
	case "fsetxattr":
		return "", unix.Fsetxattr(fd(1), c[2], []byte(c[3]), n(4))
	case "getxattr":
		b := make([]byte, 256)
		m, err := unix.Lgetxattr(p(1), c[2], b)
		return string(b[:max(m, 0)]), err
	case "listxattr":
		b := make([]byte, 4096)
		m, err := unix.Llistxattr(p(1), b)
		return strings.ReplaceAll(string(b[:max(m, 0)]), "\x00", " "), err
	case "rmxattr":
		return "", unix.Lremovexattr(p(1), c[2])
	case "setacl": // setacl path kind entries; kind access or default; entries tag:perm:id,…
		return "", unix.Setxattr(p(1), "system.posix_acl_"+c[2], aclOf(c[3]), 0)
	case "getacl":
		b := make([]byte, 256)
		m, err := unix.Getxattr(p(1), "system.posix_acl_"+c[2], b)
		return fmt.Sprintf("%x", b[:max(m, 0)]), err
	case "ls":
		es, err := os.ReadDir(p(1))
		var names []string
		for _, e := range es {
			names = append(names, e.Name()+":"+e.Type().String())
		}
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return strings.Join(names, " "), err
	case "stat", "lstat", "fstat":
		var st unix.Stat_t
		var err error
		switch c[0] {
		case "stat":
			err = unix.Stat(p(1), &st)
		case "lstat":
			err = unix.Lstat(p(1), &st)
		default:
			err = unix.Fstat(fd(1), &st)
		}
		return describe(&st, len(c) > 2 && c[2] == "times"), err
	case "moved": // which times have changed since it was last asked
		var st unix.Stat_t
		err := unix.Lstat(p(1), &st)
		old := a.seen[c[1]]
		a.seen[c[1]] = st
		return fmt.Sprint("mtime ", st.Mtim != old.Mtim, " ctime ", st.Ctim != old.Ctim), err
	case "syncfs":
		return "", unix.Syncfs(fd(1))
	case "statx":
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, p(1), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &st)
		return fmt.Sprintf("%o size %d btime %v", st.Mode, st.Size, st.Mask&unix.STATX_BTIME != 0), err
	case "blocks":
		var st unix.Stat_t
		err := unix.Stat(p(1), &st)
		return fmt.Sprint(st.Blocks), err
	case "ioctl":
		_, err := unix.IoctlGetUint32(fd(1), uint(n(2)))
		return "", err
	case "sleep":
		time.Sleep(12 * time.Millisecond)
		return "", nil
	}
	panic("unknown command " + c[0])
}

func describe(st *unix.Stat_t, times bool) string {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		st.Size = 0
	}
	s := fmt.Sprintf("%o nlink %d owner %d:%d size %d rdev %x", st.Mode, st.Nlink, st.Uid, st.Gid, st.Size, st.Rdev)
	if times {
		s += fmt.Sprintf(" atime %d.%d mtime %d.%d", st.Atim.Sec, st.Atim.Nsec, st.Mtim.Sec, st.Mtim.Nsec)
	}
	return s
}

func timeOf(s string) unix.Timespec {
	switch s {
	case "now":
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case "omit":
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	sec, nsec, _ := strings.Cut(s, ".")
	ts := unix.Timespec{Sec: int64(num(sec))}
	if nsec != "" {
		ts.Nsec, _ = strconv.ParseInt(nsec, 10, 64)
	}
	return ts
}

// aclOf encodes the kernel's xattr format of an ACL: version 2, then tag, permissions and id.
func aclOf(s string) []byte {
	b := []byte{2, 0, 0, 0}
	tags := map[string]byte{"u": 1, "user": 2, "g": 4, "group": 8, "m": 0x10, "o": 0x20}
	for _, e := range strings.Split(s, ",") {
		f := strings.Split(e, ":")
		id := uint32(0xffffffff)
		if len(f) > 2 {
			id = uint32(num(f[2]))
		}
		b = append(b, tags[f[0]], 0, byte(num(f[1])), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	return b
}
