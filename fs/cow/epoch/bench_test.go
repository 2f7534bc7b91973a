package epoch

import (
	"math/rand/v2"
	"testing"

	"graphvol/index"
)

// benchInode has bitmaps for the first n blocks.
func benchInode(b *testing.B, n uint64) *Inode {
	b.Helper()
	e, err := Create(b.TempDir(), 1)
	if err != nil {
		b.Fatal(err)
	}
	i := e.Inode(1, 1)
	for blk := uint64(0); blk < n; blk += slotBlocks {
		i.MarkBlocks(blk+70, 1)
	}
	return i
}

const benchBlocks = 8 << 30 / BlockSize

func BenchmarkBlocks(b *testing.B) {
	i := benchInode(b, benchBlocks)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		i.Blocks(r.Uint64N(benchBlocks), 1)
	}
}

func BenchmarkMarkBlocks(b *testing.B) {
	i := benchInode(b, benchBlocks)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		i.MarkBlocks(r.Uint64N(benchBlocks), 1)
	}
}

func BenchmarkMarkedMegabyte(b *testing.B) {
	i := benchInode(b, benchBlocks)
	i.MarkBlocks(0, 4*slotBlocks)
	b.ReportAllocs()
	for b.Loop() {
		if !i.Blocks(1000, 256) {
			b.Fatal("not marked")
		}
	}
}

func BenchmarkSetIdent(b *testing.B) {
	i := benchInode(b, 64)
	b.ReportAllocs()
	for n := int64(0); b.Loop(); n++ {
		i.SetIdent(index.Ident{Valid: true, Size: n})
	}
}

func BenchmarkNewInode(b *testing.B) {
	e, err := Create(b.TempDir(), 1)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for ino := uint64(1); b.Loop(); ino++ {
		e.Inode(ino, 1).MarkBlocks(0, 1)
	}
}

func BenchmarkCreate(b *testing.B) {
	dir := b.TempDir()
	for n := uint64(1); b.Loop(); n++ {
		e, err := Create(dir, n)
		if err != nil {
			b.Fatal(err)
		}
		if err := e.Remove(); err != nil {
			b.Fatal(err)
		}
	}
}

// The paths that every write takes allocate nothing.
func TestNoAllocations(t *testing.T) {
	e, err := Create(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	i := e.Inode(1, 1)
	i.MarkBlocks(0, 10*slotBlocks-1)
	i.MarkBlocks(20*slotBlocks, 1)
	n := testing.AllocsPerRun(100, func() {
		i.Blocks(5, 3000)
		i.MarkBlocks(20*slotBlocks+70, 100)
		i.MarkAttr()
		i.SetIdent(index.Ident{Valid: true, Size: 3})
		e.Find(1)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
