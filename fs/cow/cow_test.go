package cow

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
	"graphvol/fs/cow/epoch"
	"graphvol/index"
)

func (w *world) create(name string, content []byte) uint64 {
	w.t.Helper()
	a, err := w.v.Create(Caller{}, w.v.Root(), name, syscall.O_RDWR|syscall.O_EXCL, 0o600)
	w.must(err)
	w.write(a.Ino, content, 0)
	return a.Ino
}

func (w *world) write(ino uint64, p []byte, off int64) {
	w.t.Helper()
	if len(p) == 0 {
		return
	}
	_, err := w.v.Write(ino, p, off, WriteFlags{})
	w.must(err)
}

func (w *world) snapshot() *image {
	w.t.Helper()
	im, err := w.seal(w.barrier())
	w.must(err)
	return im
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func (n *inodeImage) bytes() []byte {
	p := make([]byte, n.t.Size)
	for b, blk := range n.blocks {
		copy(p[int64(b)*blockSize:], blk)
	}
	return p
}

func TestGateTimesOutAndOpensAgain(t *testing.T) {
	w := newWorld(t)
	w.v.timeout = 50 * time.Millisecond
	f := w.create("f", fill(1, blockSize))
	w.v.gate.enter() // a request that doesn't end
	_, _, err := w.v.Barrier(context.Background())
	if !errors.Is(err, ErrBarrierTimeout) {
		t.Fatalf("error %v, want ErrBarrierTimeout", err)
	}
	w.write(f, fill(2, blockSize), 0)
	w.v.gate.leave()
	im := w.snapshot()
	if got := im.inodes[f].bytes(); !bytes.Equal(got, fill(2, blockSize)) {
		t.Fatal("the snapshot after the time-out lacks a write")
	}
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.v.gate.enter()
	defer w.v.gate.leave()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, _, err := w.v.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
}

// I5: a full disk below the preimages costs the snapshot, not the write.
func TestFullPreimageStore(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mount("tmpfs", w.v.dirs.images, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(w.v.dirs.images, unix.MNT_DETACH) })
	f := w.create("f", fill(1, 64*blockSize))
	w.snapshot()
	w.write(f, fill(2, 64*blockSize), 0)
	e := w.barrier()
	w.write(f, fill(3, 64*blockSize), 0) // needs 256 KiB of preimages
	if err := e.Err(); !errors.Is(err, ErrPreimage) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("snapshot's error: %v, want ErrPreimage for ENOSPC", err)
	}
	if err := e.ReadAt(context.Background(), f, make([]byte, blockSize), 0); !errors.Is(err, ErrPreimage) {
		t.Fatalf("read of a lost snapshot: %v", err)
	}
	e.Release(false)
	got := make([]byte, 64*blockSize)
	if _, err := w.v.Read(f, got, 0); err != nil || !bytes.Equal(got, fill(3, len(got))) {
		t.Fatalf("the write is not whole: %v", err)
	}
	if im := w.snapshot(); !bytes.Equal(im.inodes[f].bytes(), got) {
		t.Fatal("the next snapshot lacks what the lost one had")
	}
	w.write(f, fill(4, blockSize), 0) // the store works again
	e = w.barrier()
	w.write(f, fill(5, blockSize), 0)
	if im, err := w.seal(e); err != nil || im.inodes[f].bytes()[0] != 4 {
		t.Fatalf("after space was freed: %v", err)
	}
}

// After a power cut the files of the running epoch may be gone. Then intents tell what may have changed, even if no change
// time says so.
func TestPowerCut(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world, f, d uint64)
		offset int64 // of the changed byte
	}{
		{"write", func(w *world, f, d uint64) { w.write(f, fill(9, 100), 5*blockSize) }, 5 * blockSize},
		{"truncate", func(w *world, f, d uint64) {
			_, err := w.v.Setattr(Caller{}, f, SetAttr{Valid: backing.SetSize, Size: 3 * blockSize})
			w.must(err)
		}, 3 * blockSize},
		{"names", func(w *world, f, d uint64) {
			_, err := w.v.Rename(Caller{}, w.v.Root(), "f", d, "g", 0)
			w.must(err)
		}, -1},
		{"attributes", func(w *world, f, d uint64) {
			_, err := w.v.Setattr(Caller{}, f, SetAttr{Valid: backing.SetMode, Mode: 0o640})
			w.must(err)
		}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			f := w.create("f", fill(1, 64*blockSize))
			d, err := w.v.Mkdir(Caller{}, w.v.Root(), "d", 0o755)
			w.must(err)
			w.snapshot()
			c.change(w, f, d.Ino)
			w.die()
			w.loseEpochs()
			w.lieAboutTimes()
			w.open(false)
			im := w.snapshot()
			want, err := os.ReadFile(w.find(f))
			w.must(err)
			if !bytes.Equal(im.inodes[f].bytes(), want) {
				t.Error("content differs")
			}
			st, err := os.Stat(w.find(f))
			w.must(err)
			if got := im.inodes[f].t.Mode & 0o777; got != uint32(st.Mode().Perm()) {
				t.Errorf("mode %o", got)
			}
			_, atRoot := im.inodes[w.v.Root()].names["f"]
			if in := im.inodes[d.Ino].names["g"] == f; in == atRoot {
				t.Error("names differ")
			}
		})
	}
}

func (w *world) find(ino uint64) (path string) {
	w.must(filepath.WalkDir(w.back, func(p string, d fs.DirEntry, err error) error {
		if st, serr := os.Stat(p); serr == nil && st.Sys().(*syscall.Stat_t).Ino == ino {
			path = p
		}
		return err
	}))
	return path
}

// loseEpochs does what a power cut may: the epochs' files have nothing of what was written to them.
func (w *world) loseEpochs() {
	nums, err := epoch.List(filepath.Join(w.state, "epochs"))
	w.must(err)
	for _, n := range nums {
		w.must(epoch.Delete(filepath.Join(w.state, "epochs"), n))
	}
	db, err := index.Open(filepath.Join(w.state, "index.db"), index.Options{})
	w.must(err)
	w.must(db.PutMeta(metaToken, []byte("another boot")))
	w.must(db.PutMeta(metaBacking, []byte("another boot")))
	w.must(db.Close())
}

// If the state's disk is dead, nothing there can say what changes. Then files are announced by their own change times, once each.
func TestDeadState(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, 8*blockSize))
	w.snapshot()
	w.must(os.RemoveAll(filepath.Join(w.state, "markers")))
	w.v.intentsBroken(w.v.run.Load(), syscall.EIO)
	var seen []backing.Time
	for range 3 {
		a, err := w.v.tree.Stat(f)
		w.must(err)
		seen = append(seen, a.Ctime)
		_, err = w.v.begin(wantRange(f, 0, 1))
		w.must(err)
		w.v.gate.leave()
	}
	if seen[1] == seen[0] {
		t.Error("blocks may change, and the change time hasn't")
	}
	if seen[2] != seen[1] {
		t.Error("the file is announced twice")
	}
	w.must(os.Mkdir(filepath.Join(w.state, "markers"), 0o700))
}

// If nothing can be recorded from the mount on, the next snapshot is a full one, also if everything dies first.
func TestFirstEpochCannotBegin(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, 8*blockSize))
	w.snapshot()
	rc := &recovery{v: w.v, last: w.v.Epoch() - 1}
	w.must(rc.begin(false)) // its files are there, so it fails
	if !w.v.run.Load().intents.broken.Load() {
		t.Fatal("it has begun")
	}
	w.write(f, fill(2, 100), 0)
	w.die()
	w.loseEpochs()
	w.lieAboutTimes()
	w.open(false)
	if im := w.snapshot(); !bytes.Equal(im.inodes[f].bytes()[:100], fill(2, 100)) {
		t.Error("the change is missing")
	}
}

// lieAboutTimes makes the newest snapshot say that inodes looked then as they look now: what a kernel with coarse change times
// may leave, or a change that reached the disk before its time did.
func (w *world) lieAboutTimes() {
	root, err := os.Open(w.back)
	w.must(err)
	defer root.Close()
	lied := w.sealed.clone()
	for ino, n := range lied.inodes {
		var st unix.Statx_t
		w.must(unix.Statx(unix.AT_FDCWD, w.find(ino), 0, unix.STATX_BASIC_STATS, &st))
		c := *n
		c.t.Size, c.t.Ctime.Sec, c.t.Ctime.Nsec = int64(st.Size), st.Ctime.Sec, st.Ctime.Nsec
		lied.inodes[ino] = &c
	}
	w.told = lied
}

func TestResent(t *testing.T) {
	w := newWorld(t)
	v, root := w.v, w.v.Root()
	again := Caller{Resent: true}
	f := w.create("f", fill(1, 3*blockSize))
	g := w.create("g", fill(2, blockSize))
	twice := func(name string, fn func(c Caller) error) {
		t.Helper()
		w.must(fn(Caller{}))
		if err := fn(again); err != nil {
			t.Errorf("%s sent again: %v", name, err)
		}
		if err := fn(Caller{}); err == nil {
			t.Errorf("%s done twice without being sent again: no error", name)
		}
	}
	twice("mkdir", func(c Caller) error { _, err := v.Mkdir(c, root, "d", 0o755); return err })
	twice("create", func(c Caller) error { _, err := v.Create(c, root, "x", syscall.O_EXCL, 0o600); return err })
	twice("symlink", func(c Caller) error { _, err := v.Symlink(c, root, "s", "t"); return err })
	twice("mknod", func(c Caller) error { _, err := v.Mknod(c, root, "p", syscall.S_IFIFO|0o600, 0); return err })
	twice("link", func(c Caller) error { _, err := v.Link(c, f, root, "l"); return err })
	twice("rename", func(c Caller) error { _, err := v.Rename(c, root, "l", root, "m", 0); return err })
	twice("unlink", func(c Caller) error { _, err := v.Unlink(c, root, "m"); return err })
	twice("rmdir", func(c Caller) error { _, err := v.Rmdir(c, root, "d"); return err })
	twice("setxattr", func(c Caller) error { return v.Setxattr(c, f, "user.a", []byte("1"), unix.XATTR_CREATE) })
	twice("removexattr", func(c Caller) error { return v.Removexattr(c, f, "user.a") })
	if _, err := v.Mkdir(again, root, "f", 0o755); err != syscall.EEXIST {
		t.Errorf("mkdir sent again where a file is: %v", err)
	}

	// What would do harm if done twice is remembered in a file.
	again.Request = 12
	exchange := func(c Caller, left *entry, want uint64, what string) {
		t.Helper()
		v.journal.left = map[uint64]entry{}
		if left != nil {
			v.journal.left[left.Request] = *left
		}
		_, err := v.Rename(c, root, "f", root, "g", backing.RenameExchange)
		w.must(err)
		if a, err := v.Lookup(root, "f"); err != nil || a.Ino != want {
			t.Error(what)
		}
	}
	exchange(again, &entry{Request: 12, Op: opExchange, A: g, B: f}, f, "died after the act: done twice")
	exchange(again, &entry{Request: 12, Op: opExchange, A: f, B: g}, g, "died before the act: not done")
	exchange(again, &entry{Request: 12, Op: opExchange, A: f, B: g, Done: true}, g, "died before the answer: done twice")
	exchange(again, &entry{Request: 11, Op: opExchange, A: f, B: g, Done: true}, f, "taken for another request: not done")
	exchange(Caller{Request: 12}, &entry{Request: 12, Op: opExchange, A: f, B: g, Done: true}, g, "not sent again: not done")
	exchange(again, nil, f, "sent again but unknown: not done")
	for _, size := range []int64{4 * blockSize, 3 * blockSize} {
		v.journal.left = map[uint64]entry{12: {Request: 12, Op: opShift, A: f, Size: size}}
		w.must(v.Fallocate(again, f, unix.FALLOC_FL_COLLAPSE_RANGE, 0, blockSize))
		want := 3 * int64(blockSize)
		if size == 3*blockSize {
			want = 2 * blockSize
		}
		if a, err := v.Getattr(f); err != nil || a.Size != want {
			t.Errorf("collapse of a file that had %d bytes: %d bytes", size, a.Size)
		}
	}
}

func TestJournalSurvivesTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	open := func(takeover bool) *journal {
		t.Helper()
		j, err := openJournal(path, takeover)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	never := func(e, old *entry) bool { e.Size = 11; return false }
	j := open(false)
	_, end := j.begin(Caller{Request: 1}, entry{Op: opShift, A: 7}, never)
	end(true)
	_, end = j.begin(Caller{Request: 2}, entry{Op: opShift, A: 8}, never)
	end(false)
	j.begin(Caller{Request: 3}, entry{Op: opShift, A: 9}, never)
	j.file.WriteString("{torn")
	for range 2 { // servers that die before they are asked for anything
		j = open(true)
		for req, done := range map[uint64]bool{1: true, 2: false, 3: false} {
			e, ok := j.left[req]
			if !ok || e.Done != done || e.A != req+6 || e.Size != 11 {
				t.Errorf("request %d: %+v, %v", req, e, ok)
			}
		}
	}
	// Sent again to the third one, which dies too.
	if done, _ := j.begin(Caller{Request: 1, Resent: true}, entry{Op: opShift, A: 7}, never); !done {
		t.Error("request 1 would be done twice")
	}
	if _, end = j.begin(Caller{Request: 3, Resent: true}, entry{Op: opShift, A: 9}, never); end == nil {
		t.Fatal("request 3 would not be done")
	}
	end(true)
	if e := open(true).left[3]; !e.Done {
		t.Errorf("request 3: %+v", e)
	}
	if n := len(open(false).left); n != 0 {
		t.Errorf("%d entries of another mount", n)
	}
}

// The journal's file stays small, and has the latest requests.
func TestJournalIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path, false)
	if err != nil {
		t.Fatal(err)
	}
	const n = 30_000
	for i := range uint64(n) {
		_, end := j.begin(Caller{Request: i}, entry{Op: opExchange, A: 1 << 40, B: 1 << 41}, exchangeDone)
		end(true)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > journalMax+1000 {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	if j, err = openJournal(path, true); err != nil || !j.left[n-1].Done || !j.left[n-100].Done {
		t.Errorf("the latest are missing: %v", err)
	}
}

func TestReadClean(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	f := w.create("f", fill(1, 8*blockSize))
	a, err := w.v.Getattr(f)
	w.must(err)
	w.snapshot()
	id := *w.v.base.Load()
	clean := func(block int64) bool {
		t.Helper()
		p := make([]byte, blockSize)
		ok, err := w.v.ReadClean(ctx, id, f, a.Gen, p, block*blockSize)
		w.must(err)
		if ok && !bytes.Equal(p, fill(1, blockSize)) {
			t.Fatal("clean, but not the snapshot's bytes")
		}
		return ok
	}
	if !clean(0) || !clean(7) {
		t.Fatal("unchanged blocks are not clean")
	}
	w.write(f, fill(2, 10), 3*blockSize)
	if clean(3) || !clean(2) {
		t.Fatal("wrong block is dirty")
	}
	e := w.barrier()
	if clean(3) {
		t.Fatal("clean in an ended epoch that changed it")
	}
	e.Release(false)
	if clean(3) {
		t.Fatal("clean after the snapshot was lost that had the change")
	}
	if ok, _ := w.v.ReadClean(ctx, id, f, a.Gen+1, make([]byte, blockSize), 0); ok {
		t.Fatal("clean for another generation")
	}
	w.snapshot()
	if clean(0) {
		t.Fatal("clean for a snapshot that isn't the newest any more")
	}
}

// A snapshot that was deleted takes with it the knowledge of what changed since the one before.
func TestNewestDeleted(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	first := w.snapshot()
	w.write(f, fill(2, blockSize), 0)
	w.snapshot()
	w.must(w.db.Remove(*w.v.base.Load()))
	w.sealed = first
	e := w.barrier()
	if !e.Full() {
		t.Fatal("the snapshot after is not a full one")
	}
	e.Release(false)
	w.close()
	w.open(false)
	if e := w.barrier(); !e.Full() {
		t.Fatal("nor after unmount and mount")
	}
}

// Only what is dirty needs to be looked at: the dirty map doesn't grow with what is merely there.
func TestDirtyList(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, 8*blockSize))
	w.create("g", fill(1, 8*blockSize))
	w.snapshot()
	w.write(f, fill(2, 10), 3*blockSize+5)
	w.write(f, fill(2, blockSize), 7*blockSize)
	var got []string
	w.must(w.v.Dirty(context.Background(), func(d DirtyFile) bool {
		got = append(got, d.Path)
		if d.Ino == f && (d.Bytes != 2*blockSize || len(d.Ranges) != 2 || d.Ranges[0] != (DirtyRange{3 * blockSize, blockSize})) {
			t.Errorf("%+v", d)
		}
		return true
	}))
	if s := strings.Join(got, " "); s != "f" {
		t.Errorf("dirty: %q", s)
	}
}

// A new file counts with its data: its holes cost a snapshot nothing. The root has a path too.
func TestDirtyListLeavesHolesOut(t *testing.T) {
	w := newWorld(t)
	w.snapshot()
	f := w.create("f", fill(1, 2*blockSize))
	_, err := w.v.Setattr(Caller{}, f, SetAttr{Valid: backing.SetSize, Size: 1 << 40})
	w.must(err)
	w.write(f, fill(2, blockSize), 1<<39)
	seen := map[string]DirtyFile{}
	w.must(w.v.Dirty(context.Background(), func(d DirtyFile) bool {
		seen[d.Path] = d
		return true
	}))
	if d := seen["f"]; !d.Whole || d.Bytes < 3*blockSize || d.Bytes > 1<<20 || len(d.Ranges) != 2 {
		t.Errorf("%+v", d)
	}
	if _, ok := seen["."]; !ok || len(seen) != 2 {
		t.Errorf("dirty: %+v", seen)
	}
}

// Cutting off terabytes of nothing must not take memory for it.
func TestHugeSparseFile(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	size := func(n int64) {
		t.Helper()
		_, err := w.v.Setattr(Caller{}, f, SetAttr{Valid: backing.SetSize, Size: n})
		w.must(err)
	}
	size(8 << 40)
	w.snapshot()
	e := w.barrier()
	size(0)
	size(8 << 40)
	im, err := w.seal(e)
	w.must(err)
	if n := im.inodes[f]; n.t.Size != 8<<40 || n.blocks[0][0] != 1 {
		t.Error("the snapshot changed")
	}
	if im = w.snapshot(); im.inodes[f].blocks[0] != nil && im.inodes[f].blocks[0][0] != 0 {
		t.Error("the cut is missing")
	}
}

// What is used before the scan has come to it was compared as it was before, also by the scan after the next mount if this one
// is not finished.
func TestChangedDuringScan(t *testing.T) {
	for _, how := range []string{"finished", "died", "closed", "taken over"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			f := w.create("f", fill(1, 8*blockSize))
			g := w.create("g", fill(1, 8*blockSize)) // dirty in a map of its own
			w.snapshot()
			w.write(g, fill(2, 1), 0)
			w.close()
			for _, ino := range []uint64{f, g} {
				file, err := os.OpenFile(w.find(ino), os.O_WRONLY, 0)
				w.must(err)
				_, err = file.WriteAt(fill(3, 10), 5*blockSize)
				w.must(errors.Join(err, file.Close()))
			}
			w.wait = make(chan struct{})
			w.open(false)
			for _, name := range []string{"f", "g"} {
				a, err := w.v.Lookup(w.v.Root(), name)
				w.must(err)
				w.write(a.Ino, fill(4, 10), blockSize)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			if _, _, err := w.v.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a barrier before the scan is over: %v", err)
			}
			wait := w.wait
			w.wait = nil
			switch how {
			case "finished":
				close(wait)
			case "closed":
				w.close()
				w.open(false)
			default:
				w.die()
				w.open(how == "taken over")
			}
			im := w.snapshot()
			for _, ino := range []uint64{f, g} {
				want, err := os.ReadFile(w.find(ino))
				w.must(err)
				if !bytes.Equal(im.inodes[ino].bytes(), want) {
					t.Errorf("inode %d differs", ino)
				}
			}
		})
	}
}
