package chunkstore

import (
	"fmt"
	"testing"
)

// BenchmarkSealFull stores segments that are half noise, half zero, as a full seal does.
func BenchmarkSealFull(b *testing.B) {
	const segment, segments = 128 << 10, 1024
	f := newFixture(b, Options{})
	r := newRand(1)
	noise := make([]byte, segment+segments*8)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	b.SetBytes(segment * segments)
	b.ReportAllocs()
	p := make([]byte, segment)
	round := 0
	for b.Loop() {
		round++
		w := f.NewWriter(b.Context())
		for i := range segments {
			for off := 0; off < segment; off += 8192 {
				copy(p[off:off+4096], noise[i*8+off:])
			}
			copy(p, fmt.Sprint(round, i))
			if _, err := w.Put(p); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		w.Close()
	}
}

// BenchmarkSealSmall stores 5,000 chunks of 2 KiB, as a small incremental seal does.
func BenchmarkSealSmall(b *testing.B) {
	f := newFixture(b, Options{})
	p := randomChunk(newRand(1), 2048)
	b.ReportAllocs()
	round := 0
	for b.Loop() {
		round++
		w := f.NewWriter(b.Context())
		for i := range 5000 {
			copy(p, fmt.Sprint(round, " ", i))
			if _, err := w.Put(p); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		w.Close()
	}
}

// BenchmarkGet reads chunks, verified.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{2 << 10, 128 << 10} {
		for _, kind := range []string{"compressed", "raw"} {
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				f := newFixture(b, Options{})
				ids := make([]ID, 64)
				var chunks [][]byte
				for i := range ids {
					r := newRand(uint64(i))
					p := randomChunk(r, size)
					for j := range p {
						if kind == "raw" {
							p[j] = byte(r.Uint32())
						}
					}
					chunks = append(chunks, p)
					ids[i] = Sum(p)
				}
				f.store(b, chunks...)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var buf []byte
				i := 0
				for b.Loop() {
					var err error
					if buf, err = f.Get(b.Context(), ids[i%len(ids)], buf); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}
