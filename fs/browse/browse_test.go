package browse

import (
	"bytes"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) lines(with string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), with)
}

// notices records what the kernel would have been told.
type notices struct {
	mu    sync.Mutex
	names []string
}

func (n *notices) EntryNotify(parent uint64, name string) fuse.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = append(n.names, name)
	return fuse.OK
}

func newTestFS(t *testing.T) (*FS, *fakeCatalogue, *logBuffer) {
	t.Helper()
	cat, log := newFakeCatalogue(), new(logBuffer)
	cat.add("one", 1, index.StateComplete)
	f := New(cat, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(f.Close)
	return f, cat, log
}

func header(node uint64) *fuse.InHeader { return &fuse.InHeader{NodeId: node} }

func lookup(t *testing.T, f fuse.RawFileSystem, dir uint64, name string) fuse.EntryOut {
	t.Helper()
	var out fuse.EntryOut
	if s := f.Lookup(nil, header(dir), name, &out); !s.Ok() {
		t.Fatalf("look up %s: %v", name, s)
	}
	return out
}

func TestNodeIDs(t *testing.T) {
	id, err := NodeID(3<<15|5, 1<<48-1)
	if err != nil || id != 0x8005ffffffffffff {
		t.Errorf("%#x, %v", id, err)
	}
	if seq, ino := splitID(id); seq != 5 || ino != 1<<48-1 {
		t.Errorf("%d, %d", seq, ino)
	}
	if _, err := NodeID(1, 1<<48); err == nil {
		t.Error("49 bits are accepted")
	}
	if !IsNode(RootID) || IsNode(1) {
		t.Error("bit 63 tells")
	}
}

func TestAttributes(t *testing.T) {
	f, _, _ := newTestFS(t)
	root := lookup(t, f, RootID, "one")
	e := lookup(t, f, root.NodeId, "file")
	if e.NodeId != e.Ino || !IsNode(e.NodeId) || e.Mode != tree.ModeRegular|0o640 || e.Uid != 33 || e.Gid != 44 || e.Nlink != 2 {
		t.Errorf("%+v", e.Attr)
	}
	if e.Mtime != uint64(fakeTime.Sec) || e.Mtimensec != fakeTime.Nsec || e.Atime != e.Mtime || e.Atimensec != e.Mtimensec {
		t.Errorf("times %+v", e.Attr)
	}
	if e.AttrTimeout() < time.Hour || e.EntryTimeout() < time.Hour || root.EntryTimeout() > time.Second {
		t.Error("time-outs")
	}
	if l := lookup(t, f, root.NodeId, "link"); l.NodeId != e.NodeId {
		t.Error("a hard link is another node")
	}
	if s := lookup(t, f, root.NodeId, "sparse"); s.Blocks != (4096+(304<<10))/512 {
		t.Errorf("sparse: %d sectors", s.Blocks)
	}
	var x fuse.StatxOut
	if s := f.Statx(nil, &fuse.StatxIn{InHeader: *header(e.NodeId)}, &x); !s.Ok() || x.Btime.Nsec != fakeTime.Nsec || x.Mask&unix.STATX_BTIME == 0 || x.Ino != e.NodeId {
		t.Errorf("%v, %+v", s, x)
	}
	var top fuse.EntryOut
	if s := f.Root(&top); !s.Ok() || top.NodeId != RootID || top.Mode != unix.S_IFDIR|0o555 || top.Nlink != 3 {
		t.Errorf("%v, %+v", s, top)
	}
	if s := f.Lookup(nil, header(root.NodeId), "absent", new(fuse.EntryOut)); s != fuse.ENOENT {
		t.Errorf("absent: %v", s)
	}
}

// A new server knows nothing of what the kernel looked up.
func TestRevival(t *testing.T) {
	f, cat, log := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "file")
	second := New(cat, slog.New(slog.NewTextHandler(log, nil)))
	defer second.Close()
	buf := make([]byte, 4096)
	in := fuse.ReadIn{InHeader: *header(e.NodeId), Fh: 99, Offset: 4096, Size: 4096}
	res, s := second.Read(nil, &in, buf)
	if !s.Ok() {
		t.Fatal(s)
	}
	if got, _ := res.Bytes(nil); !bytes.Equal(got, cat.content[4096:8192]) {
		t.Error("wrong bytes")
	}
	if _, s := second.Read(nil, &fuse.ReadIn{InHeader: *header(RootID | 77<<48 | 10), Size: 1}, buf); s != estale {
		t.Errorf("a snapshot that isn't there: %v", s)
	}
}

func TestReadIsOneCall(t *testing.T) {
	f, cat, _ := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "file")
	buf := make([]byte, 1<<20)
	res, s := f.Read(nil, &fuse.ReadIn{InHeader: *header(e.NodeId), Size: 1 << 20}, buf)
	if !s.Ok() {
		t.Fatal(s)
	}
	got, _ := res.Bytes(nil)
	if !bytes.Equal(got, cat.content) || &got[0] != &buf[0] {
		t.Error("not the file's bytes in the request's buffer")
	}
	if n := cat.reader("id-1").reads; n != 1 {
		t.Errorf("%d reads", n)
	}
	if cat.opens != 1 {
		t.Errorf("opened %d times", cat.opens)
	}
}

func list(t *testing.T, f *FS, node, fh, off uint64, size int) (names []string, last uint64) {
	t.Helper()
	out := fuse.NewDirEntryList(make([]byte, size), off)
	if s := f.ReadDir(nil, &fuse.ReadIn{InHeader: *header(node), Fh: fh, Offset: off}, out); !s.Ok() {
		t.Fatal(s)
	}
	entries, err := fuse.ParseDirEntries(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names, last = append(names, e.Name), e.Off
	}
	return names, last
}

// Offsets stay good when the server changes between two requests, and handles don't get mixed up.
func TestReadDirAcrossServers(t *testing.T) {
	f, cat, _ := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "many")
	var open fuse.OpenOut
	if s := f.OpenDir(nil, &fuse.OpenIn{InHeader: *header(e.NodeId)}, &open); !s.Ok() {
		t.Fatal(s)
	}
	var all []string
	off := uint64(0)
	for i := 0; ; i++ {
		names, last := list(t, f, e.NodeId, open.Fh, off, 4096)
		if len(names) == 0 {
			break
		}
		all, off = append(all, names...), last
		if i == 3 {
			f = New(cat, slog.Default())
			defer f.Close()
			// The same handle, but of another directory.
			f.OpenDir(nil, &fuse.OpenIn{InHeader: *header(lookup(t, f, RootID, "one").NodeId)}, &open)
		}
	}
	if len(all) != 702 || all[0] != "." || all[1] != ".." || !slices.IsSorted(all[2:]) || len(slices.Compact(slices.Clone(all))) != 702 {
		t.Errorf("%d names", len(all))
	}
}

func TestRootListing(t *testing.T) {
	f, cat, _ := newTestFS(t)
	cat.add("two", 2, index.StatePending)
	cat.add("bad", 3, index.StateFailed)
	cat.add("three", 4, index.StateComplete)
	if names, _ := list(t, f, RootID, 0, 0, 4096); !slices.Equal(names, []string{".", "..", "one", "two", "three"}) {
		t.Errorf("%v", names)
	}
	// A deletion in the middle of a listing hides nothing else.
	_, off := list(t, f, RootID, 0, 0, 32*3)
	cat.remove("one")
	if names, _ := list(t, f, RootID, 0, off, 4096); !slices.Equal(names, []string{"two", "three"}) {
		t.Errorf("after a deletion: %v", names)
	}
}

func TestPendingLookupWaits(t *testing.T) {
	f, cat, _ := newTestFS(t)
	cat.add("two", 2, index.StatePending)
	for _, end := range []struct {
		name string
		do   func(cancel chan struct{})
		want fuse.Status
	}{
		{"interrupted", func(cancel chan struct{}) { close(cancel) }, fuse.EINTR},
		{"sealed", func(chan struct{}) { cat.set("two", index.StateComplete); f.Changed() }, fuse.OK},
		{"failed", func(chan struct{}) { cat.set("two", index.StateFailed); f.Changed() }, fuse.ENOENT},
	} {
		cat.set("two", index.StatePending)
		cancel, got := make(chan struct{}), make(chan fuse.Status)
		go func() { got <- f.Lookup(cancel, header(RootID), "two", new(fuse.EntryOut)) }()
		select {
		case s := <-got:
			t.Errorf("%s: did not wait: %v", end.name, s)
		case <-time.After(10 * time.Millisecond):
			end.do(cancel)
			if s := <-got; s != end.want {
				t.Errorf("%s: %v", end.name, s)
			}
		}
	}
}

func TestDeletedSnapshot(t *testing.T) {
	f, cat, _ := newTestFS(t)
	var n notices
	f.SetNotifier(&n)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "file")
	// Somebody is in the middle of a read.
	v, _, s := f.acquire(e.NodeId)
	if !s.Ok() {
		t.Fatal(s)
	}
	cat.remove("one")
	if err := f.Changed(); err != nil {
		t.Fatal(err)
	}
	if cat.reader("id-1").closed != 0 {
		t.Error("closed under a reader")
	}
	f.release(v)
	if cat.reader("id-1").closed != 1 {
		t.Error("not closed")
	}
	if _, s := f.Read(nil, &fuse.ReadIn{InHeader: *header(e.NodeId), Size: 1}, make([]byte, 1)); s != estale {
		t.Errorf("read: %v", s)
	}
	if s := f.Lookup(nil, header(RootID), "one", new(fuse.EntryOut)); s != fuse.ENOENT {
		t.Errorf("look-up: %v", s)
	}
	if !slices.Contains(n.names, "one") {
		t.Errorf("the kernel was told of %v", n.names)
	}
	// The number may come back for another snapshot: another generation, so that the kernel keeps nothing.
	cat.add("later", 1+1<<15, index.StateComplete)
	if g := lookup(t, f, lookup(t, f, RootID, "later").NodeId, "file"); g.NodeId != e.NodeId || g.Generation == e.Generation {
		t.Errorf("node %#x generation %#x, before %#x", g.NodeId, g.Generation, e.Generation)
	}
}

func TestManySnapshotsStayBounded(t *testing.T) {
	f, cat, _ := newTestFS(t)
	for seq := uint64(2); seq < maxOpen+20; seq++ {
		name := "s" + strings.Repeat("x", int(seq))
		cat.add(name, seq, index.StateComplete)
		lookup(t, f, RootID, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.open) > maxOpen {
		t.Errorf("%d open", len(f.mu.open))
	}
}

func TestDamageIsToldOnce(t *testing.T) {
	f, _, log := newTestFS(t)
	e := lookup(t, f, lookup(t, f, lookup(t, f, RootID, "one").NodeId, "sub").NodeId, "broken")
	for range 3 {
		if _, s := f.Read(nil, &fuse.ReadIn{InHeader: *header(e.NodeId), Size: 4096}, make([]byte, 4096)); s != fuse.EIO {
			t.Errorf("got %v", s)
		}
	}
	if n := log.lines("level=ERROR"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if n := log.lines("snapshot=one path=/sub/broken inode=12 err=\"pack 00000000000000000000000000000000, offset 77"); n != 1 {
		t.Errorf("log: %s", log.b.String())
	}
}

func TestSeek(t *testing.T) {
	f, _, _ := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "sparse")
	const none = -1
	for _, c := range []struct {
		whence    uint32
		off, want int64
	}{
		{unix.SEEK_DATA, 0, 0}, {unix.SEEK_DATA, 5000, 512 << 10}, {unix.SEEK_DATA, 816 << 10, none}, {unix.SEEK_DATA, 1 << 20, none},
		{unix.SEEK_HOLE, 0, 4096}, {unix.SEEK_HOLE, 5000, 5000}, {unix.SEEK_HOLE, 600 << 10, 816 << 10}, {unix.SEEK_HOLE, 1 << 20, none},
	} {
		var out fuse.LseekOut
		s := f.Lseek(nil, &fuse.LseekIn{InHeader: *header(e.NodeId), Offset: uint64(c.off), Whence: c.whence}, &out)
		if c.want == none && s != fuse.Status(unix.ENXIO) || c.want != none && (!s.Ok() || out.Offset != uint64(c.want)) {
			t.Errorf("whence %d from %d: %v, %d", c.whence, c.off, s, out.Offset)
		}
	}
}

func TestXattrs(t *testing.T) {
	f, _, _ := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "file")
	buf := make([]byte, 64)
	if n, s := f.GetXAttr(nil, header(e.NodeId), "user.u", buf); !s.Ok() || string(buf[:n]) != "value" {
		t.Errorf("%v, %q", s, buf[:n])
	}
	if n, s := f.GetXAttr(nil, header(e.NodeId), "user.u", nil); s != fuse.ERANGE || n != 5 {
		t.Errorf("size: %v, %d", s, n)
	}
	if _, s := f.GetXAttr(nil, header(e.NodeId), "user.absent", buf); s != fuse.ENODATA {
		t.Errorf("absent: %v", s)
	}
	for uid, want := range map[uint32]string{0: "trusted.t\x00user.u\x00", 1000: "user.u\x00"} {
		h := header(e.NodeId)
		h.Uid = uid
		if n, s := f.ListXAttr(nil, h, buf); !s.Ok() || string(buf[:n]) != want {
			t.Errorf("uid %d: %v, %q", uid, s, buf[:n])
		}
	}
}

// The kernel stops sending an operation for good, for the live volume too, once it was answered by ENOSYS.
func TestNeverENOSYS(t *testing.T) {
	f, _, _ := newTestFS(t)
	e := lookup(t, f, lookup(t, f, RootID, "one").NodeId, "file")
	h := *header(e.NodeId)
	buf := make([]byte, 8)
	got := map[string]fuse.Status{
		"access": f.Access(nil, &fuse.AccessIn{InHeader: h}), "flush": f.Flush(nil, nil), "fsync": f.Fsync(nil, nil), "fsyncdir": f.FsyncDir(nil, nil),
		"fallocate": f.Fallocate(nil, nil), "ioctl": f.Ioctl(nil, nil, nil, nil, nil), "getlk": f.GetLk(nil, nil, nil), "setlk": f.SetLk(nil, nil),
		"setlkw": f.SetLkw(nil, nil), "statfs": f.StatFs(nil, &h, new(fuse.StatfsOut)), "statx": f.Statx(nil, &fuse.StatxIn{InHeader: h}, new(fuse.StatxOut)),
	}
	_, got["write"] = f.Write(nil, nil, nil)
	_, got["writev"] = f.Writev(nil, nil, nil)
	_, got["copy"] = f.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: h, NodeIdOut: 5})
	_, got["readlink"] = f.Readlink(nil, &h)
	_, got["getxattr"] = f.GetXAttr(nil, &h, "security.x", buf)
	for op, s := range got {
		if s == fuse.ENOSYS {
			t.Errorf("%s: ENOSYS", op)
		}
	}
}

// TestSearchInCircles: directories that hold one another are gone through once, and what is told of a path has an end.
func TestSearchInCircles(t *testing.T) {
	const dirs = 300
	r := newFakeReader(nil)
	var all []tree.Dirent
	for i := range uint64(dirs) {
		all = append(all, tree.Dirent{Name: fmt.Sprintf("%03d%s", i, strings.Repeat("m", 240)), Ino: 2000 + i, Type: unix.DT_DIR})
	}
	for i := range uint64(dirs) {
		d := fakeNode(2000+i, tree.ModeDir|0o755)
		r.add(fakeRoot, all[i].Name, d)
		d.entries = all
	}
	began := time.Now()
	if p, _, ok := search(r, 12345); ok || time.Since(began) >= searchTime {
		t.Errorf("found %q after %v", p, time.Since(began))
	}
	r.inodes[2000].entries = append(all[:dirs:dirs], tree.Dirent{Name: "wanted", Ino: 12345, Type: unix.DT_REG})
	p, parent, ok := search(r, 12345)
	if !ok || parent != 2000 || path.Base(p) != "wanted" {
		t.Errorf("%v in %d: %.300s", ok, parent, p)
	}
	deep := &searched{name: "/"}
	for range 1000 {
		deep = &searched{up: deep, name: all[0].Name}
	}
	if p := deep.path(); len(p) > maxToldPath+300 || !strings.HasPrefix(p, "[...]/") {
		t.Errorf("%d bytes of a path, %.20s", len(p), p)
	}
}
