package backing

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

type fakeStash map[uint64]*os.File

func (s fakeStash) Stash(ino uint64, f *os.File) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	s[ino] = os.NewFile(uintptr(fd), "stashed")
	return err
}

func (s fakeStash) Unstash(ino uint64) error {
	if f := s[ino]; f != nil {
		f.Close()
	}
	delete(s, ino)
	return nil
}

func TestTakeover(t *testing.T) {
	stash := fakeStash{}
	f := open(t, func(c *Config) { c.Stash = stash })
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	a := f.must(f.Create(me, d.Ino, "a", 0, 0o644))
	f.must(f.Lookup(d.Ino, "a"))
	f.check(f.OpenFile(a.Ino, true), nil)
	gone := f.must(f.Create(me, d.Ino, "gone", 0, 0o644))
	f.check(f.OpenFile(gone.Ino, true), nil)
	f.WriteAt(gone.Ino, []byte("still here"), 0)
	if _, err := f.Unlink(me, d.Ino, "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Rename(me, f.Root(), "d", f.Root(), "e", 0); err != nil {
		t.Fatal(err)
	}
	tmp := f.must(f.Tmpfile(me, f.Root(), 0, 0o600))
	f.check(f.OpenFile(tmp.Ino, true), nil)
	f.Close() // as good as kill: nothing is written at the end

	files := fakeStash{}
	for ino, file := range stash {
		files.Stash(ino, file)
	}
	f.reopen(func(c *Config) { c.Stash, c.Stashed, c.Takeover = stash, files, true })
	<-f.inherited // what isn't needed goes from the stash when it is known that it isn't
	if got := f.must(f.Stat(a.Ino)); got.Gen != a.Gen {
		t.Fatal(got)
	}
	if p, _ := f.Path(a.Ino); p != "/e/a" {
		t.Fatal(p)
	}
	if w := f.WritableOpen(); len(w) != 3 {
		t.Fatal("writable:", w)
	}
	buf := make([]byte, 20)
	if n, err := f.ReadAt(gone.Ino, buf, 0); err != nil || string(buf[:n]) != "still here" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if _, err := f.WriteAt(tmp.Ino, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	f.CloseFile(gone.Ino, true)
	f.Forget(gone.Ino, 1)
	if _, err := f.Link(me, tmp.Ino, f.Root(), "named"); err != nil {
		t.Fatal(err)
	}
	if len(stash) != 0 {
		t.Fatal("stash isn't empty:", stash)
	}
	f.Forget(a.Ino, 1)
	f.CloseFile(a.Ino, true)
	f.Forget(a.Ino, 5) // more than there are
	f.must(f.Stat(a.Ino))

	// Without takeover what was known is a hint.
	f.Close()
	f.reopen(nil)
	if len(f.WritableOpen()) != 0 {
		t.Fatal("opens of an earlier mount count")
	}
	if got := f.must(f.Lookup(a.Ino, ".")); got.Ino != a.Ino || got.Gen != a.Gen {
		t.Fatal(got)
	}
	os.Remove(f.dir + "/e/a")
	f.Close()
	f.reopen(nil)
	_, err := f.Lookup(a.Ino, ".")
	f.check(err, syscall.ESTALE)
}

func TestTakeoverKnowsAllNames(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	f.must(f.Link(me, a.Ino, f.Root(), "b"))
	f.must(f.Link(me, a.Ino, f.Root(), "c"))
	for _, name := range []string{"a", "c"} {
		f.Close()
		f.reopen(func(c *Config) { c.Takeover = true })
		if _, err := f.Unlink(me, f.Root(), name); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	f.reopen(func(c *Config) { c.Takeover = true })
	if got := f.must(f.Stat(a.Ino)); got.Nlink != 1 {
		t.Fatal(got)
	}
	if p, _ := f.Path(a.Ino); p != "/b" {
		t.Fatal(p)
	}
}

// A name in a directory that was removed behind our back doesn't hide the other names.
func TestNameInAVanishedDirectory(t *testing.T) {
	f := open(t, nil)
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	a := f.must(f.Create(me, f.Root(), "b", 0, 0o644))
	f.must(f.Link(me, a.Ino, d.Ino, "a"))
	f.Close()
	if err := os.RemoveAll(f.dir + "/d"); err != nil {
		t.Fatal(err)
	}
	f.reopen(func(c *Config) { c.Takeover = true })
	if got := f.must(f.Stat(a.Ino)); got.Nlink != 1 {
		t.Fatal(got)
	}
	if p, _ := f.Path(a.Ino); p != "/b" {
		t.Fatal(p)
	}
}

func TestLocate(t *testing.T) {
	f := open(t, nil)
	os.MkdirAll(f.dir+"/x/y", 0o755)
	ino := func(p string) uint64 {
		var st unix.Stat_t
		unix.Stat(f.dir+p, &st)
		return st.Ino
	}
	f.check(f.Locate(ino("/x/y"), ino("/x"), "y"), nil)
	_, err := f.Stat(ino("/x/y"))
	f.check(err, syscall.ESTALE)
	f.check(f.Locate(ino("/x"), f.Root(), "x"), nil)
	f.must(f.Stat(ino("/x/y")))
	if p, _, ok := f.Parent(ino("/x/y")); !ok || p != ino("/x") {
		t.Fatal(p, ok)
	}
}

func TestReusedInodeNumber(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	f.Close()
	os.Remove(f.dir + "/a")
	for i := range 50 { // until the number comes again
		os.WriteFile(fmt.Sprint(f.dir, "/n", i), nil, 0o644)
	}
	f.reopen(func(c *Config) { c.Takeover = true })
	for i := range 50 {
		b := f.must(f.Lookup(f.Root(), fmt.Sprint("n", i)))
		if b.Ino == a.Ino {
			if b.Gen == a.Gen && b.Gen != 0 {
				t.Fatal("the generation doesn't tell them apart")
			}
			if p, _ := f.Path(b.Ino); p != fmt.Sprint("/n", i) {
				t.Fatal(p)
			}
		}
	}
}

func TestTableSurvivesDamageAndCompacts(t *testing.T) {
	f := open(t, nil)
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	a := f.must(f.Create(me, d.Ino, "a", 0, 0o644))
	// Fill segments by moving one file to and fro.
	l := [2]link{{d.Ino, "a"}, {d.Ino, strings.Repeat("b", 250)}}
	for i := range 100000 {
		f.relink(a, l[i%2], l[1-i%2])
		if f.table.grown.Swap(false) {
			f.compact()
		}
	}
	if n := len(f.table.segs); n > 4 {
		t.Fatal("segments after compaction:", n)
	}
	f.must(f.Stat(d.Ino))
	f.Close()
	names, _ := filepath.Glob(f.state + "/nodes/*")
	for _, name := range names {
		b, _ := os.ReadFile(name)
		for _, r := range []int{5, 60, 100, len(b) / 2} {
			b[r] ^= 0x55
		}
		os.WriteFile(name, b, 0o600)
	}
	f.reopen(func(c *Config) { c.Takeover = true })
	f.must(f.Lookup(f.Root(), "d"))
}

// TestCompactionBesideChanges: records move out of segments while others change them.
func TestCompactionBesideChanges(t *testing.T) {
	f := open(t, nil)
	long := strings.Repeat("n", 240)
	var wg sync.WaitGroup
	for w := range 3 {
		a := f.must(f.Create(me, f.Root(), fmt.Sprint(w), 0, 0o644))
		l := [2]link{{f.Root(), fmt.Sprint(w)}, {f.Root(), fmt.Sprint(long, w)}}
		wg.Go(func() {
			for i := range 30001 {
				f.relink(a, l[i%2], l[1-i%2])
				f.learn(a, f.Root(), l[1-i%2].name, 1)
				f.Forget(a.Ino, 1)
			}
		})
	}
	wg.Wait()
	f.table.mu.Lock()
	n := len(f.table.segs)
	f.table.mu.Unlock()
	if n > 6 {
		t.Error("segments:", n)
	}
	for w := range 3 {
		if _, err := os.Stat(f.dir + "/" + fmt.Sprint(w)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullStateDirectory(t *testing.T) {
	needRoot(t)
	small := t.TempDir()
	if err := unix.Mount("none", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("can't mount a tmpfs:", err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	f := open(t, func(c *Config) { c.State = small })
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	f.must(f.Stat(a.Ino))
	if _, err := f.Rename(me, f.Root(), "a", f.Root(), "b", 0); err != nil {
		t.Fatal(err)
	}
	if p, _ := f.Path(a.Ino); p != "/b" {
		t.Fatal(p)
	}
	f.Close()
}

func FuzzDecode(f *testing.F) {
	tb, _ := openTable(f.TempDir(), nil)
	tb.add(5, 6, link{2, "name"}, unix.S_IFREG, nil)
	f.Add(bytes.Clone(tb.segs[0].mem[:200]))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range decode(b) {
			if len(s.l.name) > len(b) {
				t.Fatal("longer than its input")
			}
		}
	})
}

func FuzzParseDirent(f *testing.F) {
	f.Add(make([]byte, 24))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, n := parseDirent(b); n > len(b) {
			t.Fatal(n)
		}
	})
}

// TestConcurrent moves, removes and uses names from several goroutines; the race detector and the end state are the judges.
func TestConcurrent(t *testing.T) {
	f := open(t, func(c *Config) { c.MaxFD = 4 })
	dirs := []uint64{f.Root()}
	for i := range 3 {
		dirs = append(dirs, f.must(f.Mkdir(me, dirs[i], "d", 0o755)).Ino)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(int64(w)))
			for i := range 300 {
				d, name := dirs[rnd.Intn(len(dirs))], fmt.Sprint("f", rnd.Intn(5))
				a, err := f.Create(me, d, name, 0, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				if f.OpenFile(a.Ino, true) == nil {
					f.WriteAt(a.Ino, []byte{byte(i)}, 0)
					f.Rename(me, d, name, dirs[rnd.Intn(len(dirs))], fmt.Sprint("f", rnd.Intn(5)), 0)
					if _, err := f.Stat(a.Ino); err != nil {
						t.Error("stat of an open file:", err)
					}
					f.CloseFile(a.Ino, true)
				}
				f.Unlink(me, d, fmt.Sprint("f", rnd.Intn(5)))
				f.Forget(a.Ino, 1)
			}
		})
	}
	wg.Wait()
	if n := f.cache.all.Len(); n > 8 {
		t.Error("descriptors in the cache:", n)
	}
}
