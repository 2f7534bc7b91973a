package backing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

type fixture struct {
	*Tree
	t          *testing.T
	dir, state string
	byHand     bool // nobody runs inheritAll but the test
}

func open(t *testing.T, mod func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), state: t.TempDir()}
	f.reopen(mod)
	return f
}

// reopen opens the tree (again), as a new process would.
func (f *fixture) reopen(mod func(*Config)) {
	f.t.Helper()
	root, err := os.Open(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := Config{Root: root, State: f.state}
	if mod != nil {
		mod(&cfg)
	}
	tr, err := Open(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Tree = tr
	f.t.Cleanup(func() { tr.Close() })
}

func (f *fixture) must(a Attr, err error) Attr {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fixture) check(err, want error) {
	f.t.Helper()
	if !errors.Is(err, want) {
		f.t.Fatalf("error %v, want %v", err, want)
	}
}

var me = Caller{}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: acts for other users")
	}
}

func TestCreateReadWrite(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o640))
	if a.Mode != unix.S_IFREG|0o640 || a.Nlink != 1 {
		t.Fatalf("attributes %+v", a)
	}
	if n, err := f.WriteAt(a.Ino, []byte("hello"), 3); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.WriteAt(a.Ino, []byte("world"), 8); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	buf := make([]byte, 20)
	n, err := f.ReadAt(a.Ino, buf, 0)
	if err != nil || string(buf[:n]) != "\x00\x00\x00helloworld" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if n, err := f.ReadAt(a.Ino, buf, 100); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	f.check(f.Fsync(a.Ino, true), nil)
	f.check(f.FsyncDir(f.Root(), false), nil)
	b := f.must(f.Lookup(f.Root(), "a"))
	if b.Ino != a.Ino || b.Gen != a.Gen || b.Size != 13 {
		t.Fatalf("looked up %+v, created %+v", b, a)
	}
	_, err = f.Create(me, f.Root(), "a", unix.O_EXCL, 0o600)
	f.check(err, syscall.EEXIST)
	if c := f.must(f.Create(me, f.Root(), "a", 0, 0o600)); c.Ino != a.Ino {
		t.Fatal("create without O_EXCL must find the file")
	}
	for _, name := range []string{"", ".", "..", "x/y", "x\x00"} {
		_, err := f.Create(me, f.Root(), name, 0, 0o600)
		f.check(err, syscall.EINVAL)
	}
	_, err = f.Lookup(f.Root(), strings.Repeat("n", 256))
	f.check(err, syscall.ENAMETOOLONG)
}

func TestUnlinkedStaysUsable(t *testing.T) {
	f := open(t, func(c *Config) { c.MaxFD = 2 })
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	f.check(f.OpenFile(a.Ino, true), nil)
	f.WriteAt(a.Ino, []byte("data"), 0)
	r, err := f.Unlink(me, f.Root(), "a")
	if err != nil || r.Before.Nlink != 1 || r.After.Nlink != 0 || r.After.Gen != a.Gen {
		t.Fatalf("%+v %v", r, err)
	}
	for i := range 8 { // press the descriptor out of the cache
		f.must(f.Create(me, f.Root(), fmt.Sprint("x", i), 0, 0o644))
	}
	if _, err := f.WriteAt(a.Ino, []byte("more"), 4); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	if n, err := f.ReadAt(a.Ino, buf, 0); err != nil || string(buf[:n]) != "datamore" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	got := f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetMode | SetMtime | SetSize, Mode: 0o600, Size: 3, Mtime: Time{5, 6}}))
	if got.Mode&0o777 != 0o600 || got.Size != 3 || got.Mtime != (Time{5, 6}) || got.Nlink != 0 {
		t.Fatalf("%+v", got)
	}
	f.check(f.Setxattr(a.Ino, "user.k", []byte("v"), 0), nil)
	_, err = f.Path(a.Ino)
	f.check(err, syscall.ENOENT)
	file, release, err := f.Hold(a.Ino)
	f.check(err, nil)
	f.CloseFile(a.Ino, true)
	f.Forget(a.Ino, 1)
	_, err = f.Stat(a.Ino)
	f.check(err, syscall.ESTALE)
	if n, _ := file.ReadAt(buf, 0); string(buf[:n]) != "dat" {
		t.Fatalf("held file has %q", buf[:n])
	}
	release()
}

func TestRemovedDirectoryStaysUsable(t *testing.T) {
	f := open(t, nil)
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	s, err := f.OpenDir(d.Ino)
	f.check(err, nil)
	defer s.Close()
	r, err := f.Rmdir(me, f.Root(), "d")
	if err != nil || r.After.Nlink != 0 {
		t.Fatal(r, err)
	}
	if a := f.must(f.Stat(d.Ino)); a.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Fatalf("%+v", a)
	}
	_, err = f.Create(me, d.Ino, "x", 0, 0o644)
	f.check(err, syscall.ENOENT)
	f.must(f.Setattr(me, d.Ino, SetAttr{Valid: SetMode, Mode: 0o700}))
	n := 0
	f.check(s.ReadAt(0, func(Dirent) bool { n++; return true }), nil)
	f.check(f.FsyncDir(d.Ino, false), nil)
}

func TestRename(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	b := f.must(f.Create(me, f.Root(), "b", 0, 0o644))
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	m, err := f.Rename(me, f.Root(), "a", d.Ino, "c", 0)
	if err != nil || m.Inode.Ino != a.Ino || m.Replaced != nil {
		t.Fatalf("%+v %v", m, err)
	}
	if p, _ := f.Path(a.Ino); p != "/d/c" {
		t.Fatal(p)
	}
	_, err = f.Rename(me, f.Root(), "b", d.Ino, "c", RenameNoReplace)
	f.check(err, syscall.EEXIST)
	m, err = f.Rename(me, f.Root(), "b", d.Ino, "c", RenameExchange)
	if err != nil || m.Exchanged == nil || m.Exchanged.Ino != a.Ino || m.Inode.Ino != b.Ino {
		t.Fatalf("%+v %v", m, err)
	}
	m, err = f.Rename(me, f.Root(), "b", d.Ino, "c", 0)
	if err != nil || m.Replaced == nil || m.Replaced.After.Ino != b.Ino || m.Replaced.After.Nlink != 0 {
		t.Fatalf("%+v %v", m, err)
	}
	// The directory moves: what is in it is still reached, and its descriptor too.
	e := f.must(f.Mkdir(me, f.Root(), "e", 0o755))
	if _, err := f.Rename(me, f.Root(), "d", e.Ino, "dd", 0); err != nil {
		t.Fatal(err)
	}
	if p, _ := f.Path(a.Ino); p != "/e/dd/c" {
		t.Fatal(p)
	}
	f.must(f.Lookup(d.Ino, "c"))
	_, err = f.Rename(me, f.Root(), "e", d.Ino, "x", 0)
	f.check(err, syscall.EINVAL)
	l := f.must(f.Link(me, a.Ino, f.Root(), "l"))
	if l.Nlink != 2 {
		t.Fatal(l)
	}
	m, err = f.Rename(me, d.Ino, "c", f.Root(), "l", 0)
	if err != nil || !m.Same {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestHardLinkOutlivesItsKnownName(t *testing.T) {
	f := open(t, func(c *Config) { c.MaxFD = 1 })
	os.WriteFile(f.dir+"/a", []byte("x"), 0o644)
	os.Link(f.dir+"/a", f.dir+"/b")
	a := f.must(f.Lookup(f.Root(), "a"))
	r, err := f.Unlink(me, f.Root(), "a")
	if err != nil || r.After.Nlink != 1 {
		t.Fatal(r, err)
	}
	f.must(f.Mkdir(me, f.Root(), "press", 0o700))
	if got := f.must(f.Stat(a.Ino)); got.Nlink != 1 {
		t.Fatal(got)
	}
	b := f.must(f.Lookup(f.Root(), "b"))
	if b.Ino != a.Ino {
		t.Fatal(b)
	}
	if p, _ := f.Path(a.Ino); p != "/b" {
		t.Fatal(p)
	}
}

// TestThousandsOfLinks: of a file's names as many are remembered as it takes to reach it.
func TestThousandsOfLinks(t *testing.T) {
	f := open(t, func(c *Config) { c.MaxFD = 1 })
	a := f.must(f.Create(me, f.Root(), "first", 0, 0o600))
	name := func(i int) string { return fmt.Sprintf("l%d", i) }
	for i := range 2000 {
		f.must(f.Link(me, a.Ino, f.Root(), name(i)))
	}
	n := f.nodes.get(a.Ino)
	if len(n.links) > maxLinks || len(n.extra) >= maxLinks {
		t.Errorf("%d names are remembered, in %d records", len(n.links), 1+len(n.extra))
	}
	for i := 1999; i >= 0; i-- { // first those that are known
		r, err := f.Unlink(me, f.Root(), name(i))
		if err != nil || r.After.Nlink != uint32(i+1) {
			t.Fatalf("%s: %+v, %v", name(i), r, err)
		}
		if i%100 == 0 {
			f.must(f.Mkdir(me, f.Root(), fmt.Sprintf("press%d", i), 0o700)) // its descriptor goes
			f.must(f.Stat(a.Ino))
		}
	}
}

func TestTmpfile(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Tmpfile(me, f.Root(), 0, 0o600))
	if a.Nlink != 0 {
		t.Fatal(a)
	}
	f.WriteAt(a.Ino, []byte("abc"), 0)
	got := f.must(f.Link(me, a.Ino, f.Root(), "named"))
	if got.Nlink != 1 {
		t.Fatal(got)
	}
	if b, err := os.ReadFile(f.dir + "/named"); string(b) != "abc" {
		t.Fatalf("%q %v", b, err)
	}
	x := f.must(f.Tmpfile(me, f.Root(), unix.O_EXCL, 0o600))
	_, err := f.Link(me, x.Ino, f.Root(), "never")
	f.check(err, syscall.ENOENT)
}

func TestDeepTree(t *testing.T) {
	f := open(t, func(c *Config) { c.MaxFD = 8 })
	dir, name := f.Root(), strings.Repeat("d", 200)
	var all []uint64
	for range 100 { // 20,000 bytes of path, five times PATH_MAX
		dir = f.must(f.Mkdir(me, dir, name, 0o755)).Ino
		all = append(all, dir)
	}
	a := f.must(f.Create(me, dir, "leaf", 0, 0o644))
	for _, ino := range all {
		f.must(f.Stat(ino))
	}
	if n, err := f.WriteAt(a.Ino, []byte("deep"), 0); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if p, err := f.Path(a.Ino); err != nil || len(p) != 100*201+5 {
		t.Fatal(len(p), err)
	}
}

func TestNothingOutsideIsReached(t *testing.T) {
	f := open(t, nil)
	outside := t.TempDir()
	os.WriteFile(outside+"/secret", []byte("s"), 0o644)
	os.Symlink(outside, f.dir+"/l")
	a := f.must(f.Lookup(f.Root(), "l"))
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Fatal(a)
	}
	_, err := f.Lookup(a.Ino, "secret")
	if err == nil {
		t.Fatal("a symlink was followed")
	}
	// A directory that is replaced by a symlink behind our back.
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	f.must(f.Create(me, d.Ino, "x", 0, 0o600))
	f2 := &fixture{t: t, dir: f.dir, state: f.state}
	f.Close()
	os.RemoveAll(f.dir + "/d")
	os.Symlink(outside, f.dir+"/d")
	f2.reopen(func(c *Config) { c.Takeover = true })
	_, err = f2.Lookup(d.Ino, "secret")
	f.check(err, syscall.ESTALE)
}

func TestAnotherFilesystemIsRefused(t *testing.T) {
	needRoot(t)
	f := open(t, nil)
	os.Mkdir(f.dir+"/m", 0o755)
	if err := unix.Mount("none", f.dir+"/m", "tmpfs", 0, ""); err != nil {
		t.Skip("can't mount a tmpfs:", err)
	}
	defer unix.Unmount(f.dir+"/m", 0)
	_, err := f.Lookup(f.Root(), "m")
	f.check(err, syscall.EXDEV)
	os.Mkdir(f.dir+"/b", 0o755)
	if err := unix.Mount(f.dir, f.dir+"/b", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(f.dir+"/b", 0)
	_, err = f.Lookup(f.Root(), "b") // the same filesystem, by another mount
	f.check(err, syscall.EXDEV)
}

func TestCredentials(t *testing.T) {
	needRoot(t)
	f := open(t, nil)
	os.Chmod(f.dir, 0o700) // the caller itself couldn't reach it: the kernel has decided that it may
	c := Caller{Uid: 65533, Gid: 65534, Umask: 0o027}
	type made struct {
		name string
		make func(string) (Attr, error)
		mode uint32
	}
	for _, m := range []made{
		{"file", func(n string) (Attr, error) { return f.Create(c, f.Root(), n, 0, 0o6777) }, unix.S_IFREG | 0o6750},
		{"dir", func(n string) (Attr, error) { return f.Mkdir(c, f.Root(), n, 0o1777) }, unix.S_IFDIR | 0o1750},
		{"fifo", func(n string) (Attr, error) { return f.Mknod(c, f.Root(), n, unix.S_IFIFO|0o666, 0) }, unix.S_IFIFO | 0o640},
		{"dev", func(n string) (Attr, error) {
			return f.Mknod(c, f.Root(), n, unix.S_IFCHR|0o666, unix.Mkdev(1, 3))
		}, unix.S_IFCHR | 0o640},
		{"link", func(n string) (Attr, error) { return f.Symlink(c, f.Root(), n, "target") }, unix.S_IFLNK | 0o777},
		{"tmp", func(n string) (Attr, error) { return f.Tmpfile(c, f.Root(), 0, 0o666) }, unix.S_IFREG | 0o640},
	} {
		a := f.must(m.make(m.name))
		if a.Uid != 65533 || a.Gid != 65534 || a.Mode != m.mode {
			t.Errorf("%s: %d:%d mode %o, want 65533:65534 %o", m.name, a.Uid, a.Gid, a.Mode, m.mode)
		}
		if m.name == "dev" && a.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("device %x", a.Rdev)
		}
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != 0 {
		t.Fatal("the thread kept the caller's id")
	}
	// A setgid directory gives its group, and to directories the bit.
	g := f.must(f.Mkdir(me, f.Root(), "g", 0o2777))
	f.must(f.Setattr(me, g.Ino, SetAttr{Valid: SetGid, Gid: 4242}))
	f.must(f.Setattr(me, g.Ino, SetAttr{Valid: SetMode, Mode: 0o2777}))
	if a := f.must(f.Create(c, g.Ino, "x", 0, 0o2775)); a.Gid != 4242 || a.Mode&0o7777 != 0o2750 {
		t.Errorf("file in a setgid directory: %+v", a)
	}
	if a := f.must(f.Mkdir(c, g.Ino, "y", 0o777)); a.Gid != 4242 || a.Mode&0o7777 != 0o2750 {
		t.Errorf("directory in a setgid directory: %o", a.Mode)
	}
}

func TestDefaultACLInsteadOfUmask(t *testing.T) {
	f := open(t, nil)
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o777))
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][2]uint16{{1, 7}, {4, 7}, {0x20, 6}} { // user::rwx group::rwx other::rw-
		acl = append(acl, byte(e[0]), 0, byte(e[1]), 0, 0xff, 0xff, 0xff, 0xff)
	}
	if err := f.Setxattr(d.Ino, "system.posix_acl_default", acl, 0); err != nil {
		t.Skip("no ACLs here:", err)
	}
	a := f.must(f.Create(Caller{Umask: 0o077}, d.Ino, "x", 0, 0o666))
	if a.Mode&0o777 != 0o666 {
		t.Errorf("mode %o: the umask must not apply where a default ACL does", a.Mode)
	}
}

func TestKillPriv(t *testing.T) {
	f := open(t, nil)
	owner, stranger := Caller{Gid: uint32(os.Getegid())}, Caller{Uid: 65533, Gid: 65533}
	for i, c := range []struct {
		by            Caller
		before, after uint32
	}{{owner, 0o6755, 0o755}, {owner, 0o2745, 0o2745}, {stranger, 0o2745, 0o745}, {owner, 0o4644, 0o644}, {stranger, 0o644, 0o644}} {
		a := f.must(f.Create(me, f.Root(), fmt.Sprint(i), 0, 0o600))
		f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetMode, Mode: c.before}))
		f.check(f.KillPriv(c.by, a.Ino), nil)
		if got := f.must(f.Stat(a.Ino)); got.Mode&0o7777 != c.after {
			t.Errorf("%o became %o, want %o", c.before, got.Mode&0o7777, c.after)
		}
		f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetMode, Mode: c.before}))
		got := f.must(f.Setattr(c.by, a.Ino, SetAttr{Valid: SetSize | SetKillPriv, Size: 1}))
		if got.Mode&0o7777 != c.after {
			t.Errorf("truncate: %o became %o, want %o", c.before, got.Mode&0o7777, c.after)
		}
	}
	a := f.must(f.Create(me, f.Root(), "own", 0, 0o6755))
	f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetMode, Mode: 0o6755}))
	if got := f.must(f.Setattr(me, a.Ino, SetAttr{})); got.Mode&0o7777 != 0o755 {
		t.Errorf("chown(-1, -1) left %o", got.Mode)
	}
}

func TestSupplementaryGroups(t *testing.T) {
	status := "Name:\tx\nGid:\t7\t7\t7\t7\nFDSize:\t64\nGroups:\t4 24 4294967294 \nNStgid:\t1\n"
	if got := supplementary(status); !slices.Equal(got, []uint32{4, 24, 1<<32 - 2}) {
		t.Errorf("groups %v", got)
	}
	if got := supplementary("Groups:\t\n"); len(got) > 0 {
		t.Errorf("groups %v", got)
	}
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, gid := range own {
		if c := (Caller{Gid: 1<<32 - 3, Pid: uint32(os.Getpid())}); !c.inGroup(uint32(gid)) {
			t.Errorf("this process is not in its group %d", gid)
		}
	}
	if (Caller{Gid: 5, Pid: 0}).inGroup(6) {
		t.Error("a caller of whom nothing is known is in a group")
	}
}

func TestTimes(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Symlink(me, f.Root(), "l", "nowhere"))
	got := f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetAtime | SetMtime, Atime: Time{-5, 7}, Mtime: Time{1 << 31, 999999999}}))
	if got.Atime != (Time{-5, 7}) || got.Mtime != (Time{1 << 31, 999999999}) {
		t.Fatalf("%+v", got)
	}
	again := f.must(f.Setattr(me, a.Ino, SetAttr{Valid: SetMtime | SetMtimeNow}))
	if again.Atime != got.Atime || again.Mtime == got.Mtime {
		t.Fatalf("%+v", again)
	}
	if again.Btime == (Time{}) {
		t.Log("no birth times here")
	}
	if target, err := f.Readlink(a.Ino); target != "nowhere" || err != nil {
		t.Fatal(target, err)
	}
	long := strings.Repeat("x", 4000)
	b := f.must(f.Symlink(me, f.Root(), "m", long))
	if target, _ := f.Readlink(b.Ino); target != long {
		t.Fatal(len(target))
	}
	_, err := f.Setattr(me, a.Ino, SetAttr{Valid: SetMode, Mode: 0o600})
	f.check(err, syscall.EOPNOTSUPP)
}

func TestXattr(t *testing.T) {
	needRoot(t)
	f := open(t, nil)
	file := f.must(f.Create(me, f.Root(), "f", 0, 0))
	sym := f.must(f.Symlink(me, f.Root(), "s", "f"))
	fifo := f.must(f.Mknod(me, f.Root(), "p", unix.S_IFIFO|0o600, 0))
	for _, ino := range []uint64{file.Ino, sym.Ino, fifo.Ino, f.Root()} {
		if err := f.Setxattr(ino, "trusted.k", []byte("value"), unix.XATTR_CREATE); err != nil {
			t.Skip("no trusted attributes here:", err)
		}
		f.check(f.Setxattr(ino, "trusted.k", nil, unix.XATTR_CREATE), syscall.EEXIST)
		f.check(f.Setxattr(ino, "trusted.empty", nil, 0), nil)
		if n, err := f.Getxattr(ino, "trusted.k", nil); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		_, err := f.Getxattr(ino, "trusted.k", make([]byte, 2))
		f.check(err, syscall.ERANGE)
		all, err := f.Xattrs(ino)
		if err != nil || string(all["trusted.k"]) != "value" || len(all) != 2 {
			t.Fatal(all, err)
		}
		f.check(f.Removexattr(ino, "trusted.k"), nil)
		_, err = f.Getxattr(ino, "trusted.k", nil)
		f.check(err, syscall.ENODATA)
	}
	if all, _ := f.Xattrs(file.Ino); len(all) != 1 {
		t.Fatal("the symlink's attributes reached the file", all)
	}
}

func TestHolesAndSpace(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	f.check(f.Truncate(a.Ino, 1<<20), nil)
	if got := f.must(f.Stat(a.Ino)); got.Blocks != 0 || got.Size != 1<<20 {
		t.Fatalf("%+v", got)
	}
	f.WriteAt(a.Ino, bytes.Repeat([]byte{1}, 8192), 512<<10)
	if off, err := f.Seek(a.Ino, 0, unix.SEEK_DATA); off != 512<<10 || err != nil {
		t.Fatal(off, err)
	}
	if off, _ := f.Seek(a.Ino, 512<<10, unix.SEEK_HOLE); off != 520<<10 {
		t.Fatal(off)
	}
	_, err := f.Seek(a.Ino, 1<<20, unix.SEEK_DATA)
	f.check(err, syscall.ENXIO)
	f.check(f.Fallocate(a.Ino, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 512<<10, 4096), nil)
	if off, _ := f.Seek(a.Ino, 0, unix.SEEK_DATA); off != 516<<10 {
		t.Fatal(off)
	}
	b := f.must(f.Create(me, f.Root(), "b", 0, 0o644))
	if n, err := f.CopyRange(a.Ino, 516<<10, b.Ino, 10, 100); n != 100 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.CopyRange(a.Ino, 1<<20, b.Ino, 10, 100); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestReadDirPositions(t *testing.T) {
	f := open(t, nil)
	want := map[string]bool{".": true, "..": true}
	for i := range 500 {
		n := fmt.Sprintf("file-with-some-name-%d", i)
		os.WriteFile(filepath.Join(f.dir, n), nil, 0o644)
		want[n] = true
	}
	s, err := f.OpenDir(f.Root())
	f.check(err, nil)
	var pos int64
	var all []Dirent
	for {
		n := 0
		f.check(s.ReadAt(pos, func(e Dirent) bool {
			if n++; n > 7 {
				return false
			}
			all = append(all, e)
			pos = e.Off
			return true
		}), nil)
		if n == 0 {
			break
		}
		if len(all) > 100 { // positions stay good in another stream
			s.Close()
			s, _ = f.OpenDir(f.Root())
		}
	}
	s.Close()
	for _, e := range all {
		if !want[e.Name] {
			t.Fatalf("%q came twice, or shouldn't be there", e.Name)
		}
		delete(want, e.Name)
		if e.Ino == 0 || e.Type == 0 {
			t.Fatalf("%+v", e)
		}
	}
	if len(want) != 0 {
		t.Fatal("missing", want)
	}
	list, err := f.ReadDir(f.Root())
	if err != nil || len(list) != 500 {
		t.Fatal(len(list), err)
	}
}
