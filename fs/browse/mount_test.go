package browse

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"

	"graphvol/index"
)

// front stands for package fs: a root directory in which .snapshots is found by name.
type front struct{ *FS }

func (f front) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if IsNode(h.NodeId) {
		return f.FS.Lookup(cancel, h, name, out)
	}
	if name != ".snapshots" {
		return fuse.ENOENT
	}
	return f.Root(out)
}

func (f front) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if IsNode(in.NodeId) {
		return f.FS.GetAttr(cancel, in, out)
	}
	out.Attr = fuse.Attr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	return fuse.OK
}

// mountTest mounts f and returns the path of .snapshots.
func mountTest(tb testing.TB, f *FS) string {
	tb.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		tb.Skip("no /dev/fuse")
	}
	dir := tb.TempDir()
	srv, err := fuse.NewServer(front{f}, dir, &fuse.MountOptions{
		FsName: "browse-test", Name: "graphvol-test", Options: []string{"default_permissions"}, AllowOther: os.Geteuid() == 0, DirectMount: os.Geteuid() == 0,
		MaxWrite: 1 << 20, EnableAcl: true, ExtraCapabilities: fuse.CAP_WRITEBACK_CACHE,
	})
	if err != nil {
		tb.Fatal(err)
	}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			tb.Error(err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return filepath.Join(dir, ".snapshots")
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestMountedReads(t *testing.T) {
	f, cat, _ := newTestFS(t)
	one := filepath.Join(mountTest(t, f), "one")
	got, err := os.ReadFile(filepath.Join(one, "file"))
	if err != nil || !bytes.Equal(got, cat.content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if out := run(t, "find", one); strings.Count(out, "\n") != 709 {
		t.Errorf("find: %d lines", strings.Count(out, "\n"))
	}
	if to, err := os.Readlink(filepath.Join(one, "sub", "symlink")); err != nil || to != "../file" {
		t.Errorf("%q, %v", to, err)
	}
	var st, link unix.Stat_t
	unix.Stat(filepath.Join(one, "file"), &st)
	unix.Stat(filepath.Join(one, "link"), &link)
	if st.Ino != link.Ino || st.Nlink != 2 || !IsNode(st.Ino) || st.Mtim.Nsec != int64(fakeTime.Nsec) || st.Atim != st.Mtim {
		t.Errorf("%+v", st)
	}
	fd, err := os.Open(filepath.Join(one, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if off, err := unix.Seek(int(fd.Fd()), 5000, unix.SEEK_DATA); err != nil || off != 512<<10 {
		t.Errorf("SEEK_DATA: %d, %v", off, err)
	}
	if off, err := unix.Seek(int(fd.Fd()), 0, unix.SEEK_HOLE); err != nil || off != 4096 {
		t.Errorf("SEEK_HOLE: %d, %v", off, err)
	}
	if v, err := xattr.Get(filepath.Join(one, "file"), "user.u"); err != nil || string(v) != "value" {
		t.Errorf("xattr %q, %v", v, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(one, &fs); err != nil || fs.Bfree != 0 || fs.Files != 5 {
		t.Errorf("statfs %+v, %v", fs, err)
	}
}

func TestMountedCopy(t *testing.T) {
	f, _, _ := newTestFS(t)
	one := filepath.Join(mountTest(t, f), "one")
	to := filepath.Join(t.TempDir(), "copy")
	// All but sub, which has the broken file.
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "-a", "--sparse=always", filepath.Join(one, "file"), filepath.Join(one, "link"), filepath.Join(one, "sparse"), filepath.Join(one, "many"), to)
	for _, name := range []string{"file", "link", "sparse", "many"} {
		run(t, "diff", "-r", filepath.Join(one, name), filepath.Join(to, name))
	}
	var a, b unix.Stat_t
	unix.Stat(filepath.Join(to, "file"), &a)
	unix.Stat(filepath.Join(to, "link"), &b)
	if a.Ino != b.Ino || a.Mode&0o7777 != 0o640 || a.Mtim.Nsec != int64(fakeTime.Nsec) {
		t.Errorf("%+v", a)
	}
}

// Every system call that modifies, as root, whom permissions don't stop.
func TestMountedReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("permissions would answer first")
	}
	f, _, _ := newTestFS(t)
	snaps := mountTest(t, f)
	one := filepath.Join(snaps, "one")
	file, sub, absent := filepath.Join(one, "file"), filepath.Join(one, "sub"), filepath.Join(one, "absent")
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	open := func(path string, flags int) error {
		fd, err := unix.Open(path, flags, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for call, err := range map[string]error{
		"open for writing":  open(file, unix.O_WRONLY),
		"open read-write":   open(file, unix.O_RDWR),
		"open O_TRUNC":      open(file, unix.O_RDONLY|unix.O_TRUNC),
		"open O_APPEND":     open(file, unix.O_WRONLY|unix.O_APPEND),
		"create":            open(absent, unix.O_CREAT|unix.O_WRONLY),
		"create snapshot":   open(filepath.Join(snaps, "new"), unix.O_CREAT|unix.O_WRONLY),
		"tmpfile":           open(one, unix.O_TMPFILE|unix.O_RDWR),
		"truncate":          unix.Truncate(file, 0),
		"mkdir":             unix.Mkdir(absent, 0o700),
		"mkdir snapshot":    unix.Mkdir(filepath.Join(snaps, "new"), 0o700),
		"rmdir":             unix.Rmdir(sub),
		"rmdir snapshot":    unix.Rmdir(one),
		"unlink":            unix.Unlink(file),
		"rename":            unix.Rename(file, absent),
		"rename snapshot":   unix.Rename(one, filepath.Join(snaps, "new")),
		"exchange":          unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, filepath.Join(one, "sparse"), unix.RENAME_EXCHANGE),
		"link":              unix.Link(file, absent),
		"symlink":           unix.Symlink("x", absent),
		"mknod":             unix.Mknod(absent, unix.S_IFIFO|0o600, 0),
		"chmod":             unix.Chmod(file, 0o777),
		"fchmod":            unix.Fchmod(fd, 0o777),
		"chown":             unix.Chown(file, 1, 1),
		"lchown symlink":    unix.Lchown(filepath.Join(sub, "symlink"), 1, 1),
		"utimensat":         unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0),
		"setxattr":          unix.Setxattr(file, "user.u", []byte("x"), 0),
		"setxattr new":      unix.Setxattr(file, "user.new", []byte("x"), 0),
		"setxattr trusted":  unix.Setxattr(file, "trusted.t", []byte("x"), 0),
		"removexattr":       unix.Removexattr(file, "user.u"),
		"setxattr snapshot": unix.Setxattr(snaps, "user.u", []byte("x"), 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if err := unix.Fsync(fd); err != nil {
		t.Errorf("fsync: %v", err)
	}
	if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("a writable mapping")
	}
}

func TestMountedDamage(t *testing.T) {
	f, _, log := newTestFS(t)
	one := filepath.Join(mountTest(t, f), "one")
	if b, err := os.ReadFile(filepath.Join(one, "sub", "broken")); !errors.Is(err, syscall.EIO) || len(b) > 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if log.lines("path=/sub/broken") != 1 {
		t.Errorf("log: %s", log.b.String())
	}
}

func TestMountedDeletion(t *testing.T) {
	f, cat, _ := newTestFS(t)
	snaps := mountTest(t, f)
	fd, err := os.Open(filepath.Join(snaps, "one", "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cat.remove("one")
	if err := f.Changed(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(snaps, "one")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("by name: %v", err)
	}
	if _, err := fd.ReadAt(make([]byte, 1), 0); !errors.Is(err, unix.ESTALE) {
		t.Errorf("open file: %v", err)
	}
	if list, err := os.ReadDir(snaps); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	// The name can come back at once.
	cat.add("one", 9, index.StateComplete)
	if _, err := os.Stat(filepath.Join(snaps, "one", "file")); err != nil {
		t.Error(err)
	}
}

func TestMountedPending(t *testing.T) {
	f, cat, _ := newTestFS(t)
	snaps := mountTest(t, f)
	cat.add("two", 2, index.StatePending)
	if list, err := os.ReadDir(snaps); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	// A process that is killed while it waits goes away.
	cmd := exec.Command("stat", filepath.Join(snaps, "two"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	cmd.Process.Kill()
	cmd.Wait()
	got := make(chan error)
	go func() {
		_, err := os.Stat(filepath.Join(snaps, "two", "file"))
		got <- err
	}()
	cat.set("two", index.StateComplete)
	if err := f.Changed(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// BenchmarkSequentialRead reads a cold file through the kernel, so that nothing but the mount is measured.
func BenchmarkSequentialRead(b *testing.B) {
	cat := newFakeCatalogue()
	cat.content = make([]byte, 64<<20)
	cat.add("one", 1, index.StateComplete)
	f := New(cat, slog.Default())
	defer f.Close()
	fd, err := os.Open(filepath.Join(mountTest(b, f), "one", "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer fd.Close()
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(cat.content)))
	for b.Loop() {
		unix.Fadvise(int(fd.Fd()), 0, 0, unix.FADV_DONTNEED)
		for off := int64(0); off < int64(len(cat.content)); off += int64(len(buf)) {
			if _, err := fd.ReadAt(buf, off); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func (f front) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if IsNode(h.NodeId) {
		return f.FS.GetXAttr(cancel, h, name, dest)
	}
	return 0, fuse.ENODATA
}
