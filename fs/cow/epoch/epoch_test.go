package epoch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"graphvol/index"
)

// model is what an epoch should say.
type model map[uint64]*modelInode

type modelInode struct {
	gen    uint64
	blocks map[uint64]bool
	flags  index.DirtyFlags
	names  map[string]bool
	parent uint64
	name   string
	ident  index.Ident
}

func (m model) inode(ino uint64) *modelInode {
	if m[ino] == nil {
		m[ino] = &modelInode{gen: ino * 7, blocks: map[uint64]bool{}, names: map[string]bool{}}
	}
	return m[ino]
}

// randomRange returns ranges as they come: small ones at the beginning, writes anywhere, and now and then a large truncation.
func randomRange(r *rand.Rand) (first, n uint64) {
	switch r.IntN(10) {
	case 0, 1, 2:
		return r.Uint64N(70), 1 + r.Uint64N(3)
	case 3:
		return r.Uint64N(3 * slotBlocks), 1 + r.Uint64N(6*slotBlocks)
	case 4:
		return 1<<32 - 5 + r.Uint64N(10), 1 + r.Uint64N(10)
	case 5:
		return slotBlocks * r.Uint64N(4), slotBlocks * (1 + r.Uint64N(4))
	}
	return r.Uint64N(20 * slotBlocks), 1 + r.Uint64N(300)
}

// step does one random change to an epoch and its model.
func step(r *rand.Rand, e *Epoch, m model) {
	ino := 1 + r.Uint64N(12)
	i, mi := e.Inode(ino, ino*7), m.inode(ino)
	switch r.IntN(12) {
	case 0:
		i.MarkAttr()
		mi.flags |= index.DirtyAttr
	case 1:
		f := []index.DirtyFlags{index.DirtyContent, index.DirtyFresh, index.DirtyRemoved, index.DirtyNames}[r.IntN(4)]
		if r.IntN(8) == 0 {
			i.set(f)
			mi.flags |= f
		}
	case 2, 3:
		name := fmt.Sprintf("name-%d", r.IntN(40))
		if i.MarkName(name) == mi.names[name] {
			panic("MarkName doesn't tell the first time")
		}
		mi.names[name] = true
	case 4:
		mi.parent, mi.name = r.Uint64N(3), fmt.Sprintf("hint-%d", r.IntN(3))
		i.SetHint(mi.parent, mi.name)
	case 5:
		mi.ident = index.Ident{Valid: r.IntN(4) > 0}
		if mi.ident.Valid {
			mi.ident = index.Ident{
				Valid: true, Gen: r.Uint64(), Size: r.Int64(), CtimeSec: -r.Int64N(1e9), CtimeNsec: r.Uint32(),
				BtimeSec: r.Int64N(1e9), BtimeNsec: r.Uint32(),
			}
		}
		i.SetIdent(mi.ident)
	default:
		first, n := randomRange(r)
		i.MarkBlocks(first, n)
		for b := first; b < first+n; b++ {
			mi.blocks[b] = true
		}
	}
}

func sortedKeys[K string | uint64](m map[K]bool) []K { return slices.Sorted(maps.Keys(m)) }

// check compares an epoch with its model.
func check(t *testing.T, what string, r *rand.Rand, e *Epoch, m model) {
	t.Helper()
	for ino, mi := range m {
		i := e.Find(ino)
		if i == nil {
			if len(mi.blocks)+len(mi.names) > 0 || mi.flags != 0 {
				t.Fatalf("%s: inode %d is missing", what, ino)
			}
			continue
		}
		want := sortedKeys(mi.blocks)
		var got []uint64
		last := uint64(0)
		for first, n := range i.DirtyRuns {
			if len(got) > 0 && first <= last {
				t.Fatalf("%s: inode %d: run %d+%d after block %d", what, ino, first, n, last)
			}
			for b := first; b < first+n; b++ {
				got = append(got, b)
			}
			last = first + n
		}
		if !slices.Equal(got, want) || i.Count() != uint64(len(want)) {
			t.Fatalf("%s: inode %d: %d blocks (Count %d), want %d", what, ino, len(got), i.Count(), len(want))
		}
		if i.Flags() != mi.flags || i.HasContent() != (mi.flags&index.DirtyContent != 0) {
			t.Fatalf("%s: inode %d: flags %b, want %b", what, ino, i.Flags(), mi.flags)
		}
		if names := sortedKeys(mi.names); !slices.Equal(i.Names(), names) {
			t.Fatalf("%s: inode %d: names %q, want %q", what, ino, i.Names(), names)
		}
		if p, n := i.Hint(); p != mi.parent || n != mi.name {
			t.Fatalf("%s: inode %d: hint %d %q, want %d %q", what, ino, p, n, mi.parent, mi.name)
		}
		if i.Ident() != mi.ident || i.Gen() != mi.gen {
			t.Fatalf("%s: inode %d: ident %+v, want %+v", what, ino, i.Ident(), mi.ident)
		}
		for range 200 {
			first, n := randomRange(r)
			all, any := true, mi.flags&(index.DirtyContent|index.DirtyFresh) != 0
			for b := first; b < first+n; b++ {
				all = all && mi.blocks[b]
				any = any || mi.blocks[b]
			}
			if i.Blocks(first, n) != all || i.Dirty(first, n) != any {
				t.Fatalf("%s: inode %d: blocks %d+%d: Blocks %v, want %v; Dirty %v, want %v",
					what, ino, first, n, !all, all, i.Dirty(first, n), any)
			}
		}
	}
}

// encoded is the model of what Encode has room for.
func (m model) encoded() model {
	out := model{}
	for ino, mi := range m {
		c := *mi
		c.blocks = maps.Clone(mi.blocks)
		out[ino] = &c
	}
	for _, mi := range out {
		for b := range mi.blocks {
			if b >= 1<<32 {
				delete(mi.blocks, b)
				mi.flags |= index.DirtyContent
			}
		}
	}
	return out
}

func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 3 {
		dir := t.TempDir()
		e, err := Create(dir, 7)
		if err != nil || !e.Durable() {
			t.Fatal(err, e.DurableErr())
		}
		m := model{}
		for range 60 {
			step(r, e, m)
		}
		check(t, "marked", r, e, m)

		for range 2 { // the second time on what the first went on writing
			if e, err = Load(dir, 7); err != nil || e.Damaged() != 0 || !e.Durable() {
				t.Fatal(round, err, e.Damaged(), e.DurableErr())
			}
			check(t, "loaded", r, e, m)
			for range 30 {
				step(r, e, m)
			}
			check(t, "marked after loading", r, e, m)
		}

		back, err := FromDirty(7, e.Encode())
		if err != nil {
			t.Fatal(err)
		}
		check(t, "encoded and decoded", r, back, m.encoded())
		again := slices.Collect(back.Encode())
		if first := slices.Collect(e.Encode()); len(first) != len(again) {
			t.Fatalf("%d inodes encoded, %d after decoding", len(first), len(again))
		}
		if err := e.Remove(); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Fatalf("files left: %v", left)
		}
	}
}

func TestThroughIndex(t *testing.T) {
	db, err := index.Open(filepath.Join(t.TempDir(), "index.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(1, 2))
	e, m := memory(3), model{}
	for range 100 {
		step(r, e, m)
	}
	if err := db.PutEpoch(3, e.Encode()); err != nil {
		t.Fatal(err)
	}
	back, err := FromIndex(db, 3)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "from the index", r, back, m.encoded())
	if e.Inode(77, 0).SetHint(2, "dir"); len(slices.Collect(e.Encode())) != back.Len()+1 {
		t.Error("a mere hint isn't encoded")
	}
	if _, err := FromIndex(db, 4); !errors.Is(err, index.ErrNotFound) {
		t.Fatalf("an epoch that isn't stored: %v", err)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestHugeFile(t *testing.T) {
	e, err := Create(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	i := e.Inode(9, 0)
	const end = 16 << 40 / BlockSize
	for b := uint64(0); b < end; b += end / 1000 {
		i.MarkBlocks(b, 1)
	}
	i.MarkBlocks(100, end-100) // a truncation of all of it
	if !i.Blocks(100, end-100) || i.Blocks(99, 2) || i.Blocks(end-1, 2) || i.Count() != end-100+1 {
		t.Fatalf("%d blocks are marked", i.Count())
	}
	i.MarkBlocks(1<<60, 5)
	i.MarkBlocks(maxBlocks-1, 1<<63)
	if !i.Blocks(maxBlocks-1, 1) || !i.Dirty(maxBlocks-5, 9) || i.Dirty(maxBlocks-5, 4) {
		t.Fatal("the last block that can be")
	}
	if n := e.bits.mu.pos; n > 1<<20 {
		t.Fatalf("%d bytes for 1000 blocks and a run", n)
	}
	for d := range e.Encode() {
		if d.Blocks.GetCardinality() != end-100+1 || d.Flags != index.DirtyContent {
			t.Fatalf("encoded: %d blocks, flags %b", d.Blocks.GetCardinality(), d.Flags)
		}
	}
}

func TestReusedNumber(t *testing.T) {
	e := memory(1)
	i := e.Inode(5, 0)
	i.SetIdent(index.Ident{Valid: true, Size: 3})
	e.Inode(5, 77)
	if i.HasFresh() || i.Gen() != 77 || !i.Ident().Valid {
		t.Fatal("a gen that becomes known is no other file")
	}
	e.Inode(5, 0)
	i.MarkRemoved()
	if e.Inode(5, 77); !i.HasRemoved() {
		t.Fatal("the same gen is the file that went")
	}
	if e.Inode(5, 78) != i || !i.HasFresh() || i.Gen() != 78 || i.Ident().Valid || i.HasRemoved() {
		t.Fatal("another gen is another file")
	}
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	e, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	const workers, per = 8, 3000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			for range per {
				i := e.Inode(1+r.Uint64N(20), 1)
				first := r.Uint64N(10 * slotBlocks)
				i.MarkBlocks(first, 3)
				if !i.Blocks(first, 3) || !i.Dirty(first+2, 1) {
					t.Error("a mark is lost")
				}
				i.MarkName(fmt.Sprint(r.IntN(100)))
				i.SetIdent(index.Ident{Valid: true, Size: int64(first)})
				i.SetHint(first%3, "x")
				if r.IntN(500) == 0 {
					for range e.Encode() {
					}
				}
			}
		})
	}
	wg.Wait()
	back, err := Load(dir, 1)
	if err != nil || back.Damaged() != 0 {
		t.Fatal(err, back.Damaged())
	}
	a, b := slices.Collect(e.Encode()), slices.Collect(back.Encode())
	for k := range a {
		if !a[k].Blocks.Equals(b[k].Blocks) || !slices.Equal(a[k].Names, b[k].Names) || a[k].Ident != b[k].Ident {
			t.Fatalf("inode %d is another after loading", a[k].Ino)
		}
	}
}

func TestRemoveLeavesPointersValid(t *testing.T) {
	e, err := Create(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	i := e.Inode(1, 1)
	i.MarkBlocks(5000, 10)
	i.SetHint(3, "x")
	if err := e.Remove(); err != nil {
		t.Fatal(err)
	}
	if i.Blocks(5000, 10) {
		t.Fatal("the mark is still there")
	}
	i.MarkBlocks(5000, 10)
	i.MarkBlocks(50_000, 10)
	i.Hint()
	runtime.GC()
	i.MarkBlocks(100_000, 10)
	for k := range uint64(2000) { // beyond the segment that there was
		e.Inode(k, 0).MarkAttr()
	}
}

func TestCreateRefusesExisting(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []uint64{12, 3} {
		if _, err := Create(dir, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(dir, 3); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("created twice: %v", err)
	}
	if all, err := List(dir); err != nil || !slices.Equal(all, []uint64{3, 12}) {
		t.Fatal(all, err)
	}
	if _, err := Load(dir, 4); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("loaded what isn't there: %v", err)
	}
	if all, err := List(filepath.Join(dir, "none")); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
}

func TestNoDirectory(t *testing.T) {
	e, err := Create(filepath.Join(t.TempDir(), "none"), 1)
	if err != nil || e.Durable() || !errors.Is(e.DurableErr(), fs.ErrNotExist) {
		t.Fatal(err, e.DurableErr())
	}
	i := e.Inode(1, 1)
	i.MarkBlocks(3, 100_000)
	if !i.Blocks(3, 100_000) {
		t.Fatal("the mark is lost")
	}
	if err := e.Remove(); err != nil {
		t.Fatal(err)
	}
}

// On a full disk marking goes on in memory, and the files say that they aren't whole.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	e, err := Create(dir, 1)
	if err != nil || !e.Durable() {
		t.Fatal(err, e.DurableErr())
	}
	const n = 20_000
	for ino := range uint64(n) {
		e.Inode(ino, 1).MarkBlocks(ino, 1)
	}
	for ino := range uint64(n) {
		if !e.Find(ino).Blocks(ino, 1) {
			t.Fatalf("inode %d: the mark is lost", ino)
		}
	}
	if e.Durable() || !errors.Is(e.DurableErr(), unix.ENOSPC) {
		t.Fatal("claims to be durable:", e.DurableErr())
	}
	back, err := Load(dir, 1)
	if err != nil || back.Durable() || back.Damaged() != 0 {
		t.Fatal(err, back.DurableErr(), back.Damaged())
	}
	if back.Len() == 0 || !back.Find(0).Blocks(0, 1) {
		t.Fatal("what fitted on the disk isn't there")
	}
	if err := errors.Join(back.Close(), e.Remove()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("files left: %v", left)
	}
}

// Where the disk fails below the files (as it does for a page beyond a file's end), marking goes on in memory, and the files are told.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	e, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	e.Inode(1, 1).MarkBlocks(5, 1)
	for _, path := range []string{bitsPath(dir, 1), namesPath(dir, 1)} {
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if e.Lost() || !e.Durable() {
		t.Error("lost before anything failed")
	}
	const n = 3000
	for ino := range uint64(n) {
		i := e.Inode(ino, 1)
		i.MarkBlocks(ino, 2)
		i.MarkAttr()
		i.MarkName("name")
		i.SetHint(2, "hint")
		i.SetIdent(index.Ident{Valid: true, Size: int64(ino)})
	}
	for ino := range uint64(n) {
		i := e.Find(ino)
		if p, name := i.Hint(); !i.Blocks(ino, 2) || !i.HasName("name") || i.Flags() != index.DirtyAttr || p != 2 || name != "hint" || i.Ident().Size != int64(ino) {
			t.Fatalf("inode %d: a mark is lost", ino)
		}
	}
	if !e.Find(1).Blocks(5, 1) {
		t.Error("a mark made before is lost")
	}
	if !e.Lost() || !errors.Is(e.DurableErr(), errDisk) {
		t.Error("claims to be durable:", e.DurableErr())
	}
	p, err := os.ReadFile(bitsPath(dir, 1))
	if err != nil || (*header)(unsafe.Pointer(&p[0])).flags != flagIncomplete {
		t.Error("the file doesn't say that it isn't whole:", err)
	}
	if err := e.Remove(); err != nil {
		t.Error(err)
	}
}

// A hundred thousand small changed files stay cheap.
func TestMemory(t *testing.T) {
	const n = 100_000
	dir := t.TempDir()
	heap := func() int64 {
		var ms runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&ms)
		return int64(ms.HeapAlloc)
	}
	before := heap()
	e, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	for ino := range uint64(n) {
		i := e.Inode(ino, ino)
		i.MarkAttr()
		i.MarkBlocks(0, 4)
		i.SetHint(1, fmt.Sprintf("file-%08d.dat", ino))
		i.SetIdent(index.Ident{Valid: true, Size: 16384})
	}
	total := heap() - before
	for _, path := range []string{bitsPath(dir, 1), namesPath(dir, 1)} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	t.Logf("%d inodes: %.1f MB of memory and files", n, float64(total)/1e6)
	if total > 32e6 {
		t.Errorf("%d inodes cost %d bytes", n, total)
	}
	runtime.KeepAlive(e)
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Inode{}); n > 48 {
		t.Errorf("an Inode takes %d bytes", n)
	}
	start := uint64(0)
	for k := range 100 {
		if segmentStart(k) != start || segmentEnd(k) <= start || segmentEnd(k)%4096 != 0 {
			t.Fatalf("segment %d is %d to %d", k, segmentStart(k), segmentEnd(k))
		}
		start = segmentEnd(k)
	}
}

// Mappings go when nothing can reach the epoch any more, and not before.
func TestUnmapped(t *testing.T) {
	dir := t.TempDir()
	mapped := func() int {
		p, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(p, []byte(dir))
	}
	var last *Inode
	for n := range uint64(20) {
		e, err := Create(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		last = e.Inode(1, 1)
		last.MarkBlocks(5, 1)
		if err := errors.Join(e.Close(), Delete(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); mapped() > 2; runtime.Gosched() { // bits and names of the last one
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatalf("%d files are mapped", mapped())
		}
	}
	if !last.Blocks(5, 1) {
		t.Fatal("an inode's epoch was unmapped")
	}
}
