package crypt

import (
	"context"
	"testing"

	"graphvol/chunkstore/target"
)

// BenchmarkPut encrypts a pack.
func BenchmarkPut(b *testing.B) {
	data := randomBytes(1, 32<<20)
	m := &fixedTarget{buf: make([]byte, sealedSize(int64(len(data))))}
	tg := New(m, newRing(b))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := target.Put(b.Context(), tg, "packs/o", data); err != nil {
			b.Fatal(err)
		}
	}
	gigabytes(b, len(data))
}

// BenchmarkReadAt decrypts a pack, and the ranges that chunks are.
func BenchmarkReadAt(b *testing.B) {
	data := randomBytes(1, 32<<20)
	ring := newRing(b)
	o, err := New(&memTarget{stored: sealed(b, ring, "packs/o", data)}, ring).Open(b.Context(), "packs/o")
	if err != nil {
		b.Fatal(err)
	}
	for name, n := range map[string]int{"pack": len(data), "128KiB": 128 << 10, "4KiB": 4 << 10} {
		b.Run(name, func(b *testing.B) {
			p := make([]byte, n)
			b.SetBytes(int64(n))
			off := int64(0)
			for b.Loop() {
				if _, err := o.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
				if off += int64(n) + 777; off+int64(n) > o.Size() {
					off = 0
				}
			}
			gigabytes(b, n)
		})
	}
}

func gigabytes(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
}

// fixedTarget takes no memory for what is put.
type fixedTarget struct {
	memTarget
	buf []byte
}

func (f *fixedTarget) Put(_ context.Context, _ string, src target.Source, _ target.PutOptions) error {
	for off := 0; off < len(f.buf); off += 1 << 20 {
		if _, err := src.ReadAt(f.buf[off:min(off+1<<20, len(f.buf))], int64(off)); err != nil {
			return err
		}
	}
	return nil
}
