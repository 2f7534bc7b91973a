package backing

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// takeOver is reopen after the death of a server, before any node was made that nobody asks for.
func (f *fixture) takeOver() {
	f.t.Helper()
	f.end()
	root, err := os.Open(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.Tree, err = openTree(Config{Root: root, State: f.state, Takeover: true}); err != nil {
		f.t.Fatal(err)
	}
	f.byHand = true
	f.t.Cleanup(f.end)
}

// end closes the tree, of which not all nodes may have been made.
func (f *fixture) end() {
	if f.byHand && !f.settled() {
		f.closing.Store(true)
		f.inheritAll()
	}
	f.Close()
}

// checkKids counts every node's children.
func (f *fixture) checkKids() {
	f.t.Helper()
	want := map[uint64]int64{f.Root(): 1}
	f.nodes.each(func(n *node) { want[n.rec.parent]++ })
	f.nodes.each(func(n *node) {
		if got := n.kids.Load(); got != want[n.ino] {
			f.t.Errorf("inode %d counts %d children, has %d", n.ino, got, want[n.ino])
		}
	})
}

// TestInheritOnDemand: a server that takes over answers for every inode before the table has become nodes, and ends with the same nodes whatever
// was asked for meanwhile.
func TestInheritOnDemand(t *testing.T) {
	f := open(t, nil)
	dir := f.Root()
	var dirs []Attr
	for i := range 5 {
		dirs = append(dirs, f.must(f.Mkdir(me, dir, fmt.Sprint("d", i), 0o755)))
		dir = dirs[i].Ino
	}
	deep := f.must(f.Create(me, dir, "deep", 0, 0o644))
	linked := f.must(f.Create(me, f.Root(), "one", 0, 0o644))
	f.must(f.Link(me, linked.Ino, dirs[1].Ino, "two"))
	moved := f.must(f.Create(me, dirs[0].Ino, "moved", 0, 0o644))
	forgotten := f.must(f.Create(me, dirs[2].Ino, "forgotten", 0, 0o644))
	removed := f.must(f.Create(me, dirs[3].Ino, "removed", 0, 0o644))
	f.check(f.OpenFile(moved.Ino, true), nil)

	f.takeOver()
	if got := f.must(f.Stat(deep.Ino)); got.Gen != deep.Gen {
		t.Error("another inode:", got)
	}
	if _, err := f.Rename(me, dirs[0].Ino, "moved", dirs[4].Ino, "there", 0); err != nil {
		t.Fatal(err)
	}
	f.Forget(forgotten.Ino, 1)
	f.Forget(removed.Ino, 1)
	if _, err := f.Unlink(me, dirs[3].Ino, "removed"); err != nil {
		t.Fatal(err)
	}
	f.inheritAll()
	f.checkKids()
	if w := f.WritableOpen(); len(w) != 1 || w[0] != moved.Ino {
		t.Error("open for writing:", w)
	}
	if p, _ := f.Path(moved.Ino); p != "/d0/d1/d2/d3/d4/there" {
		t.Error(p)
	}
	if n := f.nodes.get(linked.Ino); n == nil || len(n.links) != 2 {
		t.Error("not both names are known")
	}
	if f.nodes.get(removed.Ino) != nil {
		t.Error("an inode that nobody knows any more is still there")
	}
	f.takeOver()
	_, err := f.Stat(removed.Ino)
	f.check(err, syscall.ESTALE)
	f.must(f.Stat(forgotten.Ino))
	f.inheritAll()
	f.checkKids()
}

// TestInheritHalfARename: the server died between a new record and the end of the old one.
func TestInheritHalfARename(t *testing.T) {
	f := open(t, nil)
	d := f.must(f.Mkdir(me, f.Root(), "d", 0o755))
	a := f.must(f.Create(me, d.Ino, "a", 0, 0o644))
	old := f.nodes.get(d.Ino).rec
	if _, err := f.Rename(me, f.Root(), "d", f.Root(), "e", 0); err != nil {
		t.Fatal(err)
	}
	old.dead = 0
	f.takeOver()
	if p, _ := f.Path(a.Ino); p != "/e/a" {
		t.Error(p)
	}
	if n := f.nodes.get(d.Ino); n.rec.nlookup != 1 {
		t.Error("references:", n.rec.nlookup)
	}
	if old := f.table.segs[0]; old.live != liveBytes(old) {
		t.Errorf("%d bytes live, counted %d", liveBytes(old), old.live)
	}
	f.inheritAll()
	f.checkKids()
}

func liveBytes(s *segment) (n int) {
	s.records(func(r *record) { n += int(r.length) })
	return n
}

// TestInheritTornRecord: what follows the last record of a dead server is not taken for one when a shorter one is written over it.
func TestInheritTornRecord(t *testing.T) {
	f := open(t, nil)
	a := f.must(f.Create(me, f.Root(), "a", 0, 0o644))
	s := f.table.segs[0]
	for i := s.used + 4; i < s.used+recordSize(maxName); i++ {
		s.mem[i] = 0x40 // as if the name had been written, and the length not
	}
	f.takeOver()
	b := f.must(f.Create(me, f.Root(), "b", 0, 0o644))
	c := f.must(f.Create(me, f.Root(), "c", 0, 0o644))
	f.takeOver()
	for _, want := range []Attr{a, b, c} {
		f.must(f.Stat(want.Ino))
	}
}

// TestInheritBesideRequests: clients work while nodes are made of the table.
func TestInheritBesideRequests(t *testing.T) {
	f := open(t, nil)
	const dirs, files = 20, 50
	var all [dirs][files]uint64
	var in [dirs]uint64
	for d := range dirs {
		in[d] = f.must(f.Mkdir(me, f.Root(), fmt.Sprint(d), 0o755)).Ino
		for i := range files {
			all[d][i] = f.must(f.Create(me, in[d], fmt.Sprint(i), 0, 0o644)).Ino
		}
	}
	f.takeOver()
	var wg sync.WaitGroup
	wg.Go(f.inheritAll)
	for w := range 4 {
		wg.Go(func() {
			for d := w; d < dirs; d += 4 {
				to := in[(d+4)%dirs]
				for i := range files {
					name := fmt.Sprint(i)
					var err error
					switch i % 4 {
					case 0:
						_, err = f.Rename(me, in[d], name, to, "from"+name, 0)
					case 1:
						_, err = f.Unlink(me, in[d], name)
						f.Forget(all[d][i], 1)
					case 2:
						_, err = f.Link(me, all[d][i], to, "link"+name)
					case 3:
						f.Forget(all[d][i], 1)
						_, err = f.Lookup(in[d], name)
					}
					if err != nil {
						t.Errorf("%d/%d: %v", d, i, err)
					}
				}
			}
		})
	}
	wg.Wait()
	f.checkKids()
	for d := range dirs {
		if f.nodes.get(all[d][1]) != nil {
			t.Error("a removed inode is still there")
		}
		if st, err := f.Stat(all[d][2]); err != nil || st.Nlink != 2 {
			t.Error(st.Nlink, err)
		}
	}
}

// BenchmarkTakeover opens a table of 100,000 inodes.
func BenchmarkTakeover(b *testing.B) {
	state := b.TempDir()
	tb, err := openTable(state+"/nodes", nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range uint64(100_000) {
		tb.add(i+1000, 1, link{i/500 + 1000, fmt.Sprint("file-", i)}, unix.S_IFREG, nil)
	}
	tb.close()
	for b.Loop() {
		tb, err := openTable(state+"/nodes", nil)
		if err != nil {
			b.Fatal(err)
		}
		if h := tb.adopt(); len(h.recs) != 100_000 {
			b.Fatal(len(h.recs))
		}
		tb.close()
	}
}
