package cow

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	duration = flag.Duration("cow.duration", 4*time.Second, "how long the model test runs")
	seedFlag = flag.Uint64("cow.seed", 0, "seed of the model test; 0: by the clock")
)

const lanes = 3

// game is the model test: lanes work on the volume while epochs end, and are sealed later, some of them after their seal
// has failed once.
type game struct {
	*world
	rnd    *rand.Rand
	lanes  []*lane
	shared uint64
	taken  []taken // ended and not sealed, oldest first
	sealed int
	most   int // epochs that are unsealed at a time
	fails  int // of five seals
}

// taken is an ended epoch with the states that lanes may have had at its barrier.
type taken struct {
	e      *Ended
	states [][]*state
}

func TestRandom(t *testing.T) { testRandom(t, 4, 1, *duration) }

// TestRandomFailures: hardly a snapshot succeeds, so that dirty maps of those that failed are merged.
func TestRandomFailures(t *testing.T) { testRandom(t, 1, 4, *duration/2) }

func testRandom(t *testing.T, most, fails int, duration time.Duration) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed: -cow.seed %d", seed)
		}
	}()
	g := newGame(t, seed)
	g.most, g.fails = most, fails
	for end := time.Now().Add(duration); time.Now().Before(end); {
		g.round(time.Duration(100+g.rnd.IntN(300)) * time.Millisecond)
		g.between()
	}
	t.Logf("%d snapshots compared", g.sealed)
}

func newGame(t *testing.T, seed uint64) *game {
	g := &game{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 0))}
	c, root := Caller{}, g.v.Root()
	a, err := g.v.Create(c, root, "shared", syscall.O_RDWR, 0o600)
	g.must(err)
	g.shared = a.Ino
	for i := range lanes {
		d, err := g.v.Mkdir(c, root, fmt.Sprintf("lane%d", i), 0o755)
		g.must(err)
		l := &lane{w: g.world, n: i, lanes: lanes, rnd: rand.New(rand.NewPCG(seed, uint64(i+1))), root: d.Ino, shared: a.Ino,
			open: map[uint64]bool{}, tmp: map[uint64]bool{}}
		l.reset(&state{nodes: map[uint64]*mnode{d.Ino: {ino: d.Ino, typ: syscall.S_IFDIR, perm: 0o755, names: map[string]uint64{}, xattrs: map[string]string{}}},
			shared: map[uint64][]byte{}})
		g.lanes = append(g.lanes, l)
	}
	return g
}

// round lets the lanes work for a while, with barriers and seals in between.
func (g *game) round(d time.Duration) {
	g.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, lanes)
	for _, l := range g.lanes {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := l.step(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for ctx.Err() == nil && len(errs) == 0 {
		if g.rnd.IntN(2) == 0 && len(g.taken) < g.most {
			g.take()
		} else if len(g.taken) > 0 {
			g.sealOldest()
		}
		pause := time.NewTimer(time.Duration(g.rnd.IntN(10)) * time.Millisecond)
		<-pause.C
	}
	wg.Wait()
	select {
	case err := <-errs:
		g.t.Fatal(err)
	default:
	}
}

func (g *game) take() {
	g.t.Helper()
	var k taken
	since := make([]int, lanes)
	for i, l := range g.lanes {
		since[i] = l.doneStep()
	}
	k.e = g.barrier()
	for i, l := range g.lanes {
		k.states = append(k.states, l.statesSince(since[i]))
	}
	g.taken = append(g.taken, k)
}

// sealOldest seals the oldest ended epoch and compares its image with the model; or lets it fail.
func (g *game) sealOldest() {
	g.t.Helper()
	k := g.taken[0]
	g.taken = g.taken[1:]
	if g.rnd.IntN(5) < g.fails {
		if g.rnd.IntN(2) == 0 { // in the middle of a seal
			for d := range k.e.Dirty {
				k.e.Done(d.Ino)
			}
		}
		k.e.Release(false)
		return
	}
	full := k.e.Full()
	im, err := g.seal(k.e)
	if err != nil {
		g.t.Fatalf("sealing epoch %d (full %v): %v", k.e.Epoch(), full, err)
	}
	g.sealed++
	g.check(im, k)
}

func (g *game) check(im *image, k taken) {
	g.t.Helper()
	seen := map[uint64]bool{}
	for i, l := range g.lanes {
		if err := l.matches(im, k.states[i], seen); err != nil {
			g.t.Fatalf("epoch %d, lane %d, none of %d states matches; the last: %v", k.e.Epoch(), i, len(k.states[i]), err)
		}
	}
	seen[g.v.Root()], seen[g.shared] = true, true
	for ino, n := range im.inodes {
		if !seen[ino] {
			g.t.Fatalf("epoch %d: inode %d is in the snapshot without a name: %+v", k.e.Epoch(), ino, n.t)
		}
	}
}

// matches tells whether the image shows the lane in one of the states, as a whole.
func (l *lane) matches(im *image, states []*state, seen map[uint64]bool) error {
	var err error
	for _, s := range slices.Backward(states) {
		mine := map[uint64]bool{}
		if err = s.compare(im, l.root, mine); err != nil {
			err = fmt.Errorf("step %d: %w", s.step, err)
			continue
		}
		blocks := map[uint64][]byte{}
		for b, p := range im.inodes[l.shared].blocks {
			if int(b)%l.lanes == l.n {
				blocks[b] = p
			}
		}
		if err = compareBlocks(s.shared, blocks); err == nil {
			maps.Copy(seen, mine)
			return nil
		}
		err = fmt.Errorf("step %d, shared file: %w", s.step, err)
	}
	return err
}

// between does what happens to servers: unmount, death, takeover, changes behind the volume's back.
func (g *game) between() {
	g.t.Helper()
	how := g.rnd.IntN(5)
	if how == 0 {
		return
	}
	g.taken = nil
	for _, l := range g.lanes {
		for _, ino := range slices.Sorted(maps.Keys(l.open)) {
			g.v.Forget(ino, 1)
			s := l.latest().clone()
			delete(s.nodes, ino)
			l.reset(s)
		}
		l.open, l.tmp = map[uint64]bool{}, map[uint64]bool{}
	}
	switch how {
	case 1:
		g.close()
	default:
		g.die()
	}
	if how != 4 {
		g.offline()
	}
	g.open(how == 4)
	g.revive(how == 4)
	g.take()
	for len(g.taken) > 0 {
		g.sealOldest()
		if len(g.taken) == 0 && g.sealed == 0 {
			g.take()
		}
	}
}

// revive makes the volume know what the lanes know, as a kernel would that looks everything up. After a takeover the kernel's
// references count on; looking up again only shows all names of hard links.
func (g *game) revive(takeover bool) {
	g.t.Helper()
	refs := map[uint64]uint64{}
	g.lookup(g.v.Root(), "shared", g.shared, refs)
	for i, l := range g.lanes {
		g.lookup(g.v.Root(), fmt.Sprintf("lane%d", i), l.root, refs)
		g.lookupAll(l.latest(), l.root, refs)
	}
	for ino, n := range refs {
		if takeover {
			n++
		}
		if n > 1 {
			g.v.Forget(ino, n-1)
		}
	}
}

func (g *game) lookup(dir uint64, name string, ino uint64, refs map[uint64]uint64) {
	g.t.Helper()
	a, err := g.v.Lookup(dir, name)
	g.must(err)
	if a.Ino != ino {
		g.t.Fatalf("%q is %d, want %d", name, a.Ino, ino)
	}
	refs[ino]++
}

func (g *game) lookupAll(s *state, dir uint64, refs map[uint64]uint64) {
	for name, ino := range s.nodes[dir].names {
		g.lookup(dir, name, ino, refs)
		if s.nodes[ino].typ == syscall.S_IFDIR {
			g.lookupAll(s, ino, refs)
		}
	}
}

// offline changes files behind the volume's back, and puts modification times back.
func (g *game) offline() {
	g.t.Helper()
	for i, l := range g.lanes {
		s := l.latest().clone()
		path := filepath.Join(g.back, fmt.Sprintf("lane%d", i))
		g.edit(l, s, l.root, path)
		l.reset(s)
	}
}

func (g *game) edit(l *lane, s *state, dir uint64, path string) {
	for _, name := range slices.Sorted(maps.Keys(s.nodes[dir].names)) {
		ino := s.nodes[dir].names[name]
		p := filepath.Join(path, name)
		switch n := s.nodes[ino]; {
		case n.typ == syscall.S_IFDIR:
			g.edit(l, s, ino, p)
		case n.typ != syscall.S_IFREG || g.rnd.IntN(4) > 0:
		case g.rnd.IntN(2) == 0:
			before, err := os.Stat(p)
			g.must(err)
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			g.must(err)
			data, off := l.data(1+g.rnd.IntN(10000)), int64(g.rnd.IntN(modelBlocks*blockSize))
			_, err = f.WriteAt(data, off)
			g.must(err)
			f.Close()
			g.must(os.Chtimes(p, time.Time{}, before.ModTime()))
			g.must(os.Chmod(p, os.FileMode(n.perm&0o777)|os.FileMode(n.perm&0o4000)<<12))
			s.edit(ino).write(data, off)
		default:
			g.must(os.Remove(p))
			s.unlink(dir, name)
			if s.nodes[ino].nlink == 0 {
				delete(s.nodes, ino)
			}
		}
	}
	if g.rnd.IntN(3) == 0 && len(s.nodes[dir].names) < 30 {
		name := l.newName(s.nodes[dir])
		p := filepath.Join(path, name)
		data := l.data(1 + g.rnd.IntN(20000))
		g.must(os.WriteFile(p, data, 0o640))
		st, err := os.Stat(p)
		g.must(err)
		n := &mnode{ino: st.Sys().(*syscall.Stat_t).Ino, typ: syscall.S_IFREG, perm: 0o640, nlink: 1, xattrs: map[string]string{}, blocks: map[uint64][]byte{}}
		n.write(data, 0)
		s.nodes[n.ino] = n
		s.edit(dir).names[name] = n.ino
	}
}
