package snapshot

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"graphvol/snapshot/tree"
)

// pagesSource is a volume with one file of pages that are half random, half zero: what the benchmarks against other systems use.
type pagesSource struct {
	pages   uint64
	version map[uint64]uint64 // of pages that were changed
	dirty   []uint64          // ascending
	epoch   uint64
	full    bool
}

const pagesIno = 500

var _ Source = (*pagesSource)(nil)

// change gives the next epoch, in which n pages were changed.
func (s *pagesSource) change(r *rand.Rand, n int) *pagesSource {
	next := &pagesSource{pages: s.pages, version: map[uint64]uint64{}, epoch: s.epoch + 1}
	for p, v := range s.version {
		next.version[p] = v
	}
	for len(next.dirty) < n {
		p := r.Uint64N(s.pages)
		if next.version[p] != next.epoch {
			next.version[p] = next.epoch
			next.dirty = append(next.dirty, p)
		}
	}
	slices.Sort(next.dirty)
	return next
}

func (s *pagesSource) fill(p []byte, page uint64) {
	x := (page+1)*0x9e3779b97f4a7c15 ^ (s.version[page]+1)*0xd1342543de82ef95
	for i := 0; i < BlockSize/2; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	clear(p[BlockSize/2:])
}

func (s *pagesSource) Epoch() uint64 { return s.epoch }
func (s *pagesSource) Root() uint64  { return fakeRoot }
func (s *pagesSource) Full() bool    { return s.full }

func (s *pagesSource) Dirty(yield func(DirtyInode) bool) {
	yield(DirtyInode{Ino: pagesIno, Runs: func(yield func(first, n uint64) bool) {
		for _, p := range s.dirty {
			if !yield(p, 1) {
				return
			}
		}
	}})
}

func (s *pagesSource) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	if ino == fakeRoot {
		return tree.Inode{Ino: ino, Mode: tree.ModeDir | 0o755, Nlink: 2}, nil
	}
	return tree.Inode{Ino: ino, Mode: tree.ModeRegular | 0o600, Nlink: 1, Size: int64(s.pages) * BlockSize, Mtime: tree.Time{Sec: int64(s.epoch)}}, nil
}

func (s *pagesSource) Entry(context.Context, uint64, string) (tree.Dirent, bool, error) {
	return tree.Dirent{}, false, nil
}

func (s *pagesSource) Entries(context.Context, uint64) ([]tree.Dirent, error) {
	return []tree.Dirent{{Name: "pages", Ino: pagesIno, Type: tree.TypeOf(tree.ModeRegular)}}, nil
}

func (s *pagesSource) ReadAt(_ context.Context, _ uint64, p []byte, off int64) error {
	for b := range len(p) / BlockSize {
		s.fill(block(p, b), uint64(off)/BlockSize+uint64(b))
	}
	return nil
}

func (s *pagesSource) NextData(_ context.Context, _ uint64, off int64) (start, end int64, err error) {
	if end = int64(s.pages) * BlockSize; off >= end {
		return 0, 0, io.EOF
	}
	return off, end, nil
}

func (s *pagesSource) Done(uint64)  {}
func (s *pagesSource) Release(bool) {}

// BenchmarkIncremental seals 5,242 random pages of a file, 1% of the pages of the 2 GiB one.
func BenchmarkIncremental(b *testing.B) {
	for _, gib := range []uint64{2, 8} {
		b.Run(fmt.Sprintf("%dGiB", gib), func(b *testing.B) {
			r := newRepo(b)
			src := &pagesSource{pages: gib << 18, epoch: 1, full: true}
			first := seal(b, r, src)
			rnd := rand.New(rand.NewPCG(1, 1))
			var stored []float64
			for b.Loop() {
				b.StopTimer()
				src = src.change(rnd, 5242)
				b.StartTimer()
				stored = append(stored, float64(seal(b, r, src).StoredBytes)/(1<<20))
			}
			b.ReportMetric(float64(first.SealNS)/1e9, "s-full")
			b.ReportMetric(stored[0], "MiB-first")
			b.ReportMetric(slices.Max(stored), "MiB-most")
		})
	}
}

// liveSource serves a pagesSource as the live volume.
type liveSource struct{ *pagesSource }

func (l liveSource) ReadClean(_ context.Context, _ string, _, _ uint64, p []byte, off int64) (bool, error) {
	var page [BlockSize]byte
	for n := 0; n < len(p); {
		l.fill(page[:], uint64(off+int64(n))/BlockSize)
		n += copy(p[n:], page[(off+int64(n))%BlockSize:])
	}
	return true, nil
}

// BenchmarkRead reads a snapshot of 256 MiB after an incremental, in one thread.
func BenchmarkRead(b *testing.B) {
	src := &pagesSource{pages: 64 << 10, epoch: 1, full: true}
	r := newRepo(b)
	r.chunks.limit = 512 << 20
	seal(b, r, src)
	src = src.change(rand.New(rand.NewPCG(1, 1)), 655)
	snap := seal(b, r, src)
	for _, live := range []Live{nil, liveSource{src}} {
		for _, mode := range []string{"seq128k-cold", "seq128k-warm", "random4k-warm"} {
			b.Run(fmt.Sprintf("%s/live=%v", mode, live != nil), func(b *testing.B) {
				r.SetLive(live)
				r.chunks = newChunkCache(r.store, 512<<20)
				r.proven = newVerifiedSet(verifiedLimit)
				rd, err := r.Reader(b.Context(), snap)
				if err != nil {
					b.Fatal(err)
				}
				defer rd.Close()
				benchRead(b, r, rd, mode, int64(src.pages)*BlockSize)
			})
		}
	}
}

func benchRead(b *testing.B, r *Repo, rd *Reader, mode string, size int64) {
	p := make([]byte, SegmentSize)
	all := func() {
		for off := int64(0); off < size; off += SegmentSize {
			if _, err := rd.ReadAt(b.Context(), pagesIno, p, off); err != nil {
				b.Fatal(err)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	switch mode {
	case "random4k-warm":
		all()
		b.SetBytes(BlockSize)
		for b.Loop() {
			if _, err := rd.ReadAt(b.Context(), pagesIno, p[:BlockSize], rnd.Int64N(size/BlockSize)*BlockSize); err != nil {
				b.Fatal(err)
			}
		}
	case "seq128k-warm":
		all()
		b.SetBytes(size)
		for b.Loop() {
			all()
		}
	default:
		b.SetBytes(size)
		for b.Loop() {
			r.chunks = newChunkCache(r.store, 64<<20)
			r.proven = newVerifiedSet(verifiedLimit)
			all()
		}
	}
}

// manySource is a volume of small files, 1,000 in a directory.
type manySource struct {
	pagesSource
	files uint64
}

func (s *manySource) Entries(_ context.Context, dir uint64) ([]tree.Dirent, error) {
	var out []tree.Dirent
	if dir == fakeRoot {
		for d := uint64(0); d < s.files; d += 1000 {
			out = append(out, tree.Dirent{Name: fmt.Sprint("d", d), Ino: 1<<30 + d, Type: tree.TypeOf(tree.ModeDir)})
		}
		return out, nil
	}
	for i := range uint64(1000) {
		ino := 1<<20 + dir - 1<<30 + i
		out = append(out, tree.Dirent{Name: fmt.Sprintf("file-%06d.dat", ino), Ino: ino, Type: tree.TypeOf(tree.ModeRegular)})
	}
	return out, nil
}

func (s *manySource) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	if ino == fakeRoot || ino >= 1<<30 {
		return tree.Inode{Ino: ino, Mode: tree.ModeDir | 0o755, Nlink: 2}, nil
	}
	return tree.Inode{Ino: ino, Mode: tree.ModeRegular | 0o600, Nlink: 1, Size: 3000, Gen: ino * 77, Mtime: tree.Time{Sec: int64(ino)}}, nil
}

func (s *manySource) ReadAt(_ context.Context, ino uint64, p []byte, off int64) error {
	s.fill(p[:BlockSize], ino)
	return nil
}

func (s *manySource) NextData(_ context.Context, _ uint64, off int64) (start, end int64, err error) {
	if off >= 3000 {
		return 0, 0, io.EOF
	}
	return off, 3000, nil
}

func (s *manySource) Dirty(yield func(DirtyInode) bool) {
	yield(DirtyInode{Ino: 1<<20 + 77, Content: true})
}

// BenchmarkManyFiles seals 100,000 small files in full, and then one changed file among them.
func BenchmarkManyFiles(b *testing.B) {
	for b.Loop() {
		r := newRepo(b)
		src := &manySource{pagesSource{pages: 1, epoch: 1, full: true}, 100_000}
		full := seal(b, r, src)
		src.epoch, src.full, src.version = 2, false, map[uint64]uint64{1<<20 + 77: 1}
		one := seal(b, r, src)
		b.ReportMetric(float64(full.SealNS)/1e9, "s-full")
		b.ReportMetric(float64(full.StoredBytes)/100_000, "B/file")
		b.ReportMetric(float64(one.SealNS)/1e6, "ms-one")
		b.ReportMetric(float64(one.StoredBytes), "B-one")
	}
}
