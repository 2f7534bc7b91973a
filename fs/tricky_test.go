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
	if Cache("none").Known() {
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
