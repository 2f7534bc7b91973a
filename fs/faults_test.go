package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// scripts are what a passing-through filesystem easily gets wrong. The plain filesystem is the judge.
func scripts() map[string]string {
	return map[string]string{
		"mode 0 is mode 0": `
			1 open @1 f rw,creat 0
			1 pwrite @1 10 0
			1 fsync @1
			1 pread @1 10 0
			1 lstat f
			1 open @2 f r 0
			1 open @2 @1 r 0
			1 truncate f 3
			1 ftruncate @1 3
			1 fstat @1
			2 open @1 f r 0`,
		"permissions": `
			0 mkdir r 0755
			0 open @1 r/f rw,creat 0600
			1 unlink r/f
			1 chmod r/f 0777
			1 chown r/f 65533 65533
			1 open @1 r/f r 0
			1 truncate r/f 0
			1 mkdir r/d 0777
			1 rename r/f f
			1 setxattr r/f user.x y 0
			1 utimens r/f now now
			0 chmod r/f 0666
			1 utimens r/f now now
			1 utimens r/f 1 1`,
		"sticky directories": `
			0 mkdir s 0777
			0 chmod s 01777
			1 open @1 s/f rw,creat 0666
			2 unlink s/f
			2 rename s/f s/g
			2 open @1 s/h rw,creat 0666
			1 rename s/f s/h
			1 rename s/f s/i
			2 unlink s/h
			0 unlink s/i`,
		"setgid directories": `
			0 mkdir g 0777
			0 chown g 0 4000
			0 chmod g 02777
			1 open @1 g/f rw,creat 02777
			1 lstat g/f
			1 mkdir g/d 0777
			1 lstat g/d
			2 open @1 g/h rw,creat 02775
			2 lstat g/h
			2 mknod g/p f 02775 0 0
			2 lstat g/p
			2 symlink x g/s
			2 lstat g/s
			2 open @2 g tmp,rw 02775
			2 fstat @2
			1 chmod g/f 02755
			1 lstat g/f
			2 chmod g/h 02755
			2 lstat g/h`,
		"an open file that was removed": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 100 0
			1 unlink f
			1 fstat @1
			1 fchmod @1 0600
			1 fchown @1 -1 4000
			1 ftruncate @1 10
			1 futimens @1 5.6 7.8
			1 fsetxattr @1 user.k v 0
			1 fstat @1 times
			1 pread @1 100 0
			1 open @2 @1 r 0
			1 pread @2 100 0
			1 fallocate @1 0 0 5000
			1 fsync @1
			1 fstat @2
			1 linkfd @1 back
			1 close @1
			1 fstat @2
			1 close @2`,
		"an open file that was replaced": `
			1 open @1 f rw,creat 0644
			1 open @2 g rw,creat 0600
			1 pwrite @2 7 0
			1 rename g f
			1 fstat @1
			1 fstat @2
			1 fchmod @1 0611
			1 fchmod @2 0622
			1 lstat f
			1 fstat @1
			1 pwrite @1 50 0
			1 lstat f`,
		"an open directory that was removed": `
			1 mkdir d 0755
			1 open @1 d r,dir 0
			1 rmdir d
			1 fstat @1
			1 fchmod @1 0700
			1 fchown @1 -1 4000
			1 futimens @1 5 6
			1 fsetxattr @1 user.k v 0
			1 fstat @1 times
			1 ls @1
			1 open @2 @1/x rw,creat 0644
			1 mkdir d 0711
			1 fstat @1
			1 lstat d`,
		"hard links": `
			1 open @1 a rw,creat 0644
			1 link a b
			1 link a c
			1 unlink a
			1 lstat b
			1 fchmod @1 0600
			1 lstat c
			1 rename b c
			1 lstat b
			1 lstat c
			1 rename2 b c 2
			1 unlink b
			1 fstat @1
			1 symlink nowhere s
			1 link s t
			1 lstat t
			1 unlink s
			1 readlink t
			1 mkdir d 0755
			1 link d e`,
		"files without a name": `
			1 open @1 . tmp,rw 0640
			1 fstat @1
			1 pwrite @1 10 0
			1 linkfd @1 named
			1 lstat named
			1 pread @1 10 0
			1 open @2 . tmp,rw,excl 0640
			1 linkfd @2 never`,
		"write clears setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 pwrite @1 1 0
			1 lstat f
			1 chmod f 02745
			1 pwrite @1 1 0
			1 lstat f
			1 chmod f 06777
			2 open @2 f w 0
			2 write @2 3
			2 lstat f
			1 chmod f 06755
			0 open @3 f w 0
			0 write @3 3
			0 lstat f`,
		"truncate and fallocate clear setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 truncate f 100
			1 lstat f
			1 chmod f 06755
			1 ftruncate @1 50
			1 lstat f
			1 chmod f 06755
			1 fallocate @1 0 0 9000
			1 lstat f
			1 chmod f 06755
			1 open @2 f rw,trunc 0
			1 lstat f
			1 open @3 g rw,creat 0755
			1 pwrite @3 5000 0
			1 chmod f 06755
			1 copy @3 0 @1 0 5000
			1 lstat f
			1 chmod f 06755
			0 truncate f 3
			0 lstat f`,
		"chown clears setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 chown f -1 4000
			1 lstat f
			0 chmod f 06755
			0 chown f 65534 65534
			0 lstat f
			0 chmod f 02745
			0 chown f 65533 65533
			0 lstat f
			0 chmod f 06755
			0 chown f -1 -1
			0 lstat f
			1 mkdir d 0755
			0 chmod d 06755
			0 chown d 65534 65534
			0 lstat d`,
		"capabilities are cleared": `
			0 open @1 f rw,creat 0755
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 listxattr f
			0 pwrite @1 10 0
			0 listxattr f
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 chown f 65533 65533
			0 listxattr f
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 truncate f 1
			0 listxattr f`,
		"symlinks": `
			1 open @1 f rw,creat 0644
			1 symlink f l
			1 utimens l 5.000000006 7.000000008
			1 lstat l times
			0 lchown l 65534 65534
			0 lstat l
			1 lstat f
			1 statx l
			1 statx f
			0 setxattr l trusted.k v 0
			0 listxattr l
			0 listxattr f
			0 getxattr l trusted.k
			0 setxattr l user.k v 0
			1 listxattr l
			1 chmod l 0600
			1 lstat f
			1 readlink l
			1 readlink f
			1 symlink l l2
			1 stat l2
			1 symlink loop loop
			1 stat loop
			1 open @2 loop r 0
			1 open @2 l r,nofollow 0`,
		"special files": `
			1 mknod p f 0666 0 0
			0 mknod c c 0666 1 3
			0 mknod big c 0600 4095 1048575
			0 lstat big
			1 mknod c2 c 0666 1 3
			1 mknod s s 0700 0 0
			1 lstat p
			1 lstat c
			0 setxattr p trusted.k v 0
			0 listxattr p
			0 open @1 c rw 0
			0 pread @1 10 0
			1 open @2 s r 0
			1 chmod p 0600
			1 utimens p 1 2
			1 lstat p times
			1 rename p q
			1 link q q2
			1 unlink q`,
		"default ACLs": `
			1 mkdir d 0777
			1 setacl d default u:7,user:6:65534,g:5,m:7,o:1
			2 mkdir d/sub 0777
			0 open @1 d/f rw,creat 0666
			0 lstat d/f
			0 getacl d/f access
			1 mkdir d/e 0777
			1 lstat d/e
			1 getacl d/e default
			1 getacl d/e access
			1 chmod d/e 0700
			1 getacl d/e access
			1 mknod d/p f 0666 0 0
			1 lstat d/p
			1 mkdir e 0777
			1 setacl e default u:7,g:7,o:7
			2 mkdir e/x 0777
			0 lstat e/x
			0 mkdir e/y 0777
			0 lstat e/y`,
		"access ACLs": `
			1 open @1 f rw,creat 0600
			2 open @1 f r 0
			1 setacl f access u:6,user:4:65534,g:0,m:4,o:0
			2 open @1 f r 0
			2 open @1 f rw 0
			1 lstat f
			1 chmod f 02600
			1 setacl f access u:6,user:4:65534,g:0,m:4,o:0
			1 lstat f
			2 open @2 f r 0
			1 rmxattr f system.posix_acl_access
			2 open @2 f r 0
			1 lstat f`,
		"append": `
			1 open @1 f w,creat,append 0644
			1 write @1 100
			1 pwrite @1 5 0
			1 write @1 5000
			1 fstat @1
			1 open @2 f r 0
			1 pread @2 200 0
			2 open @1 f rw,append 0
			1 ftruncate @1 50
			1 write @1 3
			1 pread @2 200 0
			1 fstat @2`,
		"write only": `
			1 open @1 f w,creat 0200
			1 pwrite @1 10 5000
			1 pwrite @1 10 100
			1 pread @1 10 0
			1 fsync @1
			1 fstat @1
			1 chmod f 0600
			1 open @2 f r 0
			1 pread @2 10 5000
			1 pread @2 20 95`,
		"holes": `
			1 open @1 f rw,creat 0644
			1 ftruncate @1 1048576
			1 seek @1 0 data
			1 seek @1 0 hole
			1 pwrite @1 4096 524288
			1 seek @1 0 data
			1 seek @1 524288 hole
			1 seek @1 528384 data
			1 seek @1 1048576 hole
			1 seek @1 2000000 data
			1 fsync @1
			1 blocks f
			1 fallocate @1 3 524288 4096
			1 fsync @1
			1 blocks f
			1 seek @1 0 data
			1 fallocate @1 1 0 2097152
			1 fstat @1
			1 fallocate @1 16 0 4096
			1 fallocate @1 0 0 2097152
			1 fstat @1
			1 fallocate @1 2 0 4096`,
		"copies": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10000 0
			1 open @2 g rw,creat 0644
			1 copy @1 0 @2 100 5000
			1 fstat @2
			1 pread @2 50 90
			1 copy @1 10000 @2 0 10
			1 copy @1 0 @1 5000 5000
			1 copy @1 0 @1 100 5000
			1 open @3 g r 0
			1 copy @1 0 @3 0 10
			1 open @4 g w,append 0
			1 copy @1 0 @4 0 10`,
		"extended attributes": `
			1 open @1 f rw,creat 0644
			1 setxattr f user.a one 1
			1 setxattr f user.a two 1
			1 setxattr f user.b two 2
			1 setxattr f user.a three 2
			1 getxattr f user.a
			1 getxattr f user.none
			1 rmxattr f user.none
			1 rmxattr f user.a
			1 setxattr f trusted.a x 0
			0 setxattr f trusted.a x 0
			1 getxattr f trusted.a
			1 listxattr f
			0 listxattr f
			1 setxattr f weird x 0
			2 setxattr f user.c x 0
			1 mkdir d 0755
			1 setxattr d user.k v 0
			1 listxattr d`,
		"renames": `
			1 mkdir a 0755
			1 mkdir a/b 0755
			1 rename a a/b/c
			1 rename a a
			1 rename a/b a
			1 open @1 f rw,creat 0644
			1 rename a f
			1 rename f a
			1 rename f f/x
			1 rename2 f a 2
			1 lstat f
			1 rename2 f a 1
			1 rename2 f none 1
			1 rename2 none x 2
			1 mkdir e 0755
			1 rename none e
			1 lstat none
			1 mkdir o 0755
			1 rename o none/b
			1 ls none
			2 rename none x
			0 rename2 a w 4
			0 lstat a`,
		"names": `
			1 mkdir ` + strings.Repeat("n", 255) + ` 0755
			1 mkdir ` + strings.Repeat("n", 256) + ` 0755
			1 lstat ` + strings.Repeat("n", 256) + `
			1 symlink ` + strings.Repeat("t/", 2000) + ` s
			1 lstat s
			1 rmdir .
			1 rmdir d/..
			1 mkdir d 0755
			1 rmdir d/.
			1 rmdir d/..
			1 unlink d
			1 open @1 f rw,creat 0644
			1 rmdir f
			1 mkdir f/x 0755
			1 lstat f/x`,
		"times move": `
			1 open @1 f rw,creat 0644
			1 mkdir d 0755
			1 moved f
			1 moved d
			1 sleep
			1 chmod f 0600
			1 moved f
			1 sleep
			1 pwrite @1 10 0
			1 moved f
			1 sleep
			1 truncate f 5
			1 moved f
			1 sleep
			1 ftruncate @1 5
			1 moved f
			1 sleep
			1 link f d/g
			1 moved f
			1 moved d
			1 sleep
			1 rename d/g d/h
			1 moved f
			1 moved d
			1 sleep
			1 unlink d/h
			1 moved f
			1 moved d
			1 sleep
			1 setxattr f user.k v 0
			1 moved f
			1 sleep
			0 chown f -1 -1
			1 moved f
			1 sleep
			1 utimens f 5 6
			1 moved f
			1 sleep
			1 utimens f omit omit
			1 moved f
			1 sleep
			1 fallocate @1 0 0 5000
			1 moved f
			1 sleep
			1 mkdir d/e 0755
			1 moved d
			1 moved d/e
			1 sleep
			1 rename d/e e
			1 moved d
			1 moved e
			1 sleep
			1 symlink x d/s
			1 moved d
			1 sleep
			1 setacl f access u:6,g:4,o:0
			1 moved f
			1 lstat f`,
		// In the write-back mode the kernel keeps the times itself, and doesn't renew them here.
		throughOnly + "truncate to the same size": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10 0
			1 moved f
			1 sleep
			1 truncate f 10
			1 moved f`,
		"file times survive": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10 0
			1 utimens f 1.000000001 2.999999999
			1 lstat f times
			1 close @1
			1 lstat f times
			1 utimens f -1 4294967296
			1 lstat f times
			1 open @1 f rw 0
			1 futimens @1 omit 77.5
			1 lstat f times`,
		"direct I/O": `
			1 open @1 f rw,creat,direct 0644
			1 open @2 f r 0
			1 ftruncate @1 10000
			1 pread @2 10 0`,
		"synchronous writes": `
			1 open @1 f w,creat,dsync 0644
			1 write @1 10000
			1 fstat @1`,
	}
}

// fileCaps stands for a security.capability that gives nothing (version 2, no capabilities); see the actor's setxattr.
const fileCaps = "CAPS"

// throughOnly begins the name of a script that the write-back mode can't satisfy.
const throughOnly = "through: "

func TestScripts(t *testing.T) {
	needRoot(t)
	bothModes(t, func(t *testing.T, w *world) {
		users := cast(t)
		for name, script := range scripts() {
			if strings.HasPrefix(name, throughOnly) && w.cache != WriteThrough {
				continue
			}
			t.Run(name, func(t *testing.T) {
				same(t, w, users, strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "/", ""), script)
			})
		}
	})
}

func TestIoctlsStayOutside(t *testing.T) {
	w := mount(t, WriteBack)
	f, err := os.Create(w.mnt + "/f")
	w.must(err)
	defer f.Close()
	const fifreeze = 0xc0045877                                            // refused by the kernel itself
	for _, cmd := range []uint{0x80086601, 0x8004587d, fifreeze, 0x5401} { // GETFLAGS, SHUTDOWN, FIFREEZE, TCGETS
		if _, err := unix.IoctlGetUint32(int(f.Fd()), cmd); err != unix.ENOTTY && (cmd != fifreeze || err == nil) {
			t.Errorf("ioctl %#x: %v", cmd, err)
		}
	}
}

func TestPathsLongerThanTheKernelTakes(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		fd, err := unix.Open(w.mnt, unix.O_PATH, 0)
		w.must(err)
		name := strings.Repeat("d", 250)
		for range 40 {
			w.must(unix.Mkdirat(fd, name, 0o755))
			next, err := unix.Openat(fd, name, unix.O_PATH, 0)
			w.must(err)
			unix.Close(fd)
			fd = next
		}
		defer unix.Close(fd)
		f, err := unix.Openat(fd, "f", unix.O_RDWR|unix.O_CREAT, 0o644)
		w.must(err)
		defer unix.Close(f)
		if _, err := unix.Pwrite(f, []byte("deep"), 0); err != nil {
			t.Fatal(err)
		}
		w.must(unix.Fsync(f))
	})
}

// TestFileHandles: a handle leads to its file after the kernel has forgotten it, and after a new mount.
func TestFileHandles(t *testing.T) {
	needRoot(t)
	w := mount(t, WriteBack)
	w.must(os.MkdirAll(w.mnt+"/d/e", 0o755))
	w.must(os.WriteFile(w.mnt+"/d/e/f", []byte("found"), 0o644))
	var handles []unix.FileHandle
	for _, p := range []string{"/d/e/f", "/d/e", ""} {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, w.mnt+p, 0)
		w.must(err)
		handles = append(handles, h)
	}
	gone, _, err := unix.NameToHandleAt(unix.AT_FDCWD, w.mnt+"/d", 0)
	w.must(err)
	check := func() {
		t.Helper()
		root, err := unix.Open(w.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		w.must(err)
		defer unix.Close(root)
		for i, h := range handles {
			fd, err := unix.OpenByHandleAt(root, h, unix.O_RDONLY)
			if err != nil {
				t.Fatalf("handle %d: %v", i, err)
			}
			if i == 0 {
				b := make([]byte, 10)
				if n, _ := unix.Pread(fd, b, 0); string(b[:n]) != "found" {
					t.Fatalf("%q", b[:n])
				}
			}
			unix.Close(fd)
		}
	}
	check()
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
	check()
	w.stop()
	w.start()
	check()
	w.must(os.Rename(w.mnt+"/d/e", w.mnt+"/e"))
	check()
	w.must(os.Remove(w.mnt + "/d"))
	root, err := unix.Open(w.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must(err)
	defer unix.Close(root)
	if fd, err := unix.OpenByHandleAt(root, gone, unix.O_RDONLY); err != unix.ESTALE {
		unix.Close(fd)
		t.Fatal("a removed directory's handle:", err)
	}
}

func TestMountOptions(t *testing.T) {
	needRoot(t)
	w := mount(t, WriteBack)
	line := mountLine(t, w.mnt)
	if strings.Contains(line, "nosuid") || strings.Contains(line, "nodev") || !strings.Contains(line, "default_permissions") || !strings.Contains(line, "allow_other") {
		t.Error(line)
	}
	o := MountOptions(Options{})
	for _, x := range o.Options {
		if x == "suid" || x == "dev" {
			t.Error("setuid programs and devices must be asked for")
		}
	}
	if _, err := ParseCache("none"); err == nil {
		t.Error("an unknown cache mode passed")
	}
}

func mountLine(t *testing.T, mnt string) string {
	b, _ := os.ReadFile("/proc/mounts")
	for l := range strings.SplitSeq(string(b), "\n") {
		if strings.Contains(l, " "+mnt+" ") {
			return l
		}
	}
	t.Fatal("not mounted")
	return ""
}

// TestSyncfsWithARemovedFile: with go-fuse's loopback, this failed.
func TestSyncfsWithARemovedFile(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		w.must(os.WriteFile(w.mnt+"/f", []byte("x"), 0o644))
		f, err := os.Open(w.mnt + "/f")
		w.must(err)
		defer f.Close()
		w.must(os.Remove(w.mnt + "/f"))
		w.must(unix.Syncfs(int(f.Fd())))
	})
}

// snapshots is a Browser with nothing but its root directory.
type snapshots struct{ fuse.RawFileSystem }

const snapNode = 1 << 63

func (s snapshots) Init(*fuse.Server) {}
func (s snapshots) OnUnmount()        {}
func (s snapshots) Root(out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.Ino, out.Mode, out.Nlink = snapNode, snapNode, fuse.S_IFDIR|0o555, 2
	return fuse.OK
}
func (s snapshots) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, fuse.S_IFDIR|0o555, 2
	return fuse.OK
}
func (s snapshots) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return fuse.ENOENT
}
func (s snapshots) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}
func (s snapshots) Forget(uint64, uint64) {}

func TestSnapshotsDirectory(t *testing.T) {
	w := newWorld(t, WriteBack)
	w.browser = snapshots{fuse.NewDefaultRawFileSystem()}
	w.start()
	snap := w.mnt + "/.snapshots"
	if st, err := os.Stat(snap); err != nil || !st.IsDir() {
		t.Fatal(st, err)
	}
	es, err := os.ReadDir(w.mnt)
	if err != nil || len(es) != 0 {
		t.Fatal("it must not be listed:", es, err)
	}
	w.must(os.Mkdir(w.mnt+"/d", 0o755))
	if _, err := os.Stat(w.mnt + "/d/.snapshots"); !os.IsNotExist(err) {
		t.Error("only the root has it:", err)
	}
	for what, err := range map[string]error{ // without root's rights, the kernel refuses what is to be made in a read-only directory
		"rmdir":   unix.Rmdir(snap),
		"rename":  unix.Rename(snap, w.mnt+"/x"),
		"onto it": unix.Rename(w.mnt+"/d", snap),
		"into it": unix.Mkdir(snap+"/x", 0o755),
	} {
		if err != unix.EROFS && (err != unix.EACCES || os.Geteuid() == 0) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := unix.Mkdir(snap, 0o755); err != unix.EEXIST {
		t.Error("mkdir:", err)
	}
	w.stop()
	w.must(os.Mkdir(w.back+"/.snapshots", 0o755))
	w.must(os.WriteFile(w.back+"/.snapshots/real", nil, 0o644))
	w.start()
	if _, err := os.Stat(snap + "/real"); err != nil {
		t.Error("a real directory of that name keeps its place:", err)
	}
	w.must(os.RemoveAll(snap))
}

// TestFlusher: after a flush the backing has everything, and no disk was flushed for it.
func TestFlusher(t *testing.T) {
	w := mount(t, WriteBack)
	w.must(os.Mkdir(w.mnt+"/d", 0o755))
	const n, size = 20, 300000
	want := strings.Repeat("0123456789abcdef", size/16)
	var files []*os.File
	for i := range n {
		f, err := os.Create(filepath.Join(w.mnt, "d", string(rune('a'+i))))
		w.must(err)
		defer f.Close()
		if _, err := f.WriteString(want); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	w.must(os.Rename(w.mnt+"/d", w.mnt+"/moved"))
	w.must(os.Remove(w.mnt + "/moved/a"))
	w.must(w.flusher.Flush(context.Background()))
	for i := 1; i < n; i++ {
		b, err := os.ReadFile(filepath.Join(w.back, "moved", string(rune('a'+i))))
		if err != nil || string(b) != want {
			t.Fatalf("file %d has %d bytes on the backing: %v", i, len(b), err)
		}
	}
	var st unix.Stat_t
	w.must(unix.Fstat(int(files[0].Fd()), &st))
	if a, err := w.vol.Getattr(st.Ino); err != nil || a.Size != size/16*16 {
		t.Error("the removed file:", a.Size, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.flusher.Flush(ctx); err == nil {
		t.Error("a cancelled flush claims success")
	}
}

// TestDirtyPagesAreNoHoles: what only the kernel has counts as data.
func TestDirtyPagesAreNoHoles(t *testing.T) {
	for _, flusher := range []bool{true, false} {
		w := mount(t, WriteBack)
		if !flusher {
			w.srv.flusher.Store(nil)
		}
		f, err := os.Create(w.mnt + "/f")
		w.must(err)
		defer f.Close()
		w.must(f.Truncate(1 << 20))
		f.WriteAt(make([]byte, 4096), 512<<10)
		if off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); off != 512<<10 || err != nil {
			t.Error("flusher", flusher, "data at", off, err)
		}
		helper(t, "store", w.mnt+"/f")
		if off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); off != 8192 || err != nil {
			t.Error("flusher", flusher, "data at", off, err, "after a store to a mapping")
		}
	}
}

// TestMappingsAreCoherent: a read-only mapping beside pwrite, as LMDB does it, and stores beside pread.
func TestMappingsAreCoherent(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		helper(t, "coherent", w.mnt+"/f")
		back, err := os.ReadFile(w.back + "/f")
		if err != nil || back[4096] != 2 || back[4097] != 8 {
			t.Fatal("msync didn't reach the backing", err)
		}
	})
}

// TestBlocksAreTrue: st_blocks is the backing's once pages are written back.
func TestBlocksAreTrue(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		f, err := os.Create(w.mnt + "/f")
		w.must(err)
		defer f.Close()
		for i := range 4 {
			f.WriteAt(make([]byte, 64<<10), int64(i)<<20)
			w.must(f.Sync())
			var m, b unix.Stat_t
			w.must(unix.Fstat(int(f.Fd()), &m))
			w.must(unix.Stat(w.back+"/f", &b))
			if m.Blocks != b.Blocks || m.Blocks < int64(i+1)*128 {
				t.Fatalf("%d blocks, the backing has %d", m.Blocks, b.Blocks)
			}
		}
	})
}

// TestReadOnlyExecutable: a program that runs can be read and synced, and not written.
func TestReadOnlyExecutable(t *testing.T) {
	w := mount(t, WriteBack)
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip(err)
	}
	w.must(os.WriteFile(w.mnt+"/sleep", b, 0o755))
	// Started by a shell: a process that forks itself holds the scheduler, which the server needs to answer exec's reads.
	out, err := exec.Command("sh", "-c", w.mnt+"/sleep 60 >/dev/null 2>&1 & echo $!").Output()
	w.must(err)
	pid := num(strings.TrimSpace(string(out)))
	defer waitGone(pid)
	defer unix.Kill(pid, unix.SIGKILL)
	for exe := ""; exe != w.mnt+"/sleep"; exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) {
		if unix.Kill(pid, 0) != nil {
			t.Skip("can't run programs from the mount")
		}
		runtime.Gosched()
	}
	if _, err := os.ReadFile(w.mnt + "/sleep"); err != nil {
		t.Error(err)
	}
	if _, err := os.OpenFile(w.mnt+"/sleep", os.O_RDWR, 0); !errors.Is(err, unix.ETXTBSY) {
		t.Error("a running program was opened for writing:", err)
	}
}

// waitGone returns when a process that isn't our child has ended.
func waitGone(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
}
