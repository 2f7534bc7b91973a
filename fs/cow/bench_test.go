package cow

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"
)

// BenchmarkWrite compares writes of 4 KiB through a Volume with pwrite(2) on the same file.
func BenchmarkWrite(b *testing.B) {
	const blocks = 16384 // 64 MiB
	w := newWorld(b)
	f := w.create("f", nil)
	for off := int64(0); off < blocks*blockSize; off += 1 << 20 {
		w.write(f, fill(1, 1<<20), off)
	}
	p := fill(2, blockSize)
	at := func() int64 { return int64(rand.IntN(blocks)) * blockSize }
	run := func(name string, write func(off int64) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := write(at()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	raw, err := os.OpenFile(w.find(f), os.O_RDWR, 0)
	w.must(err)
	defer raw.Close()
	run("pwrite", func(off int64) error { _, err := raw.WriteAt(p, off); return err })
	run("backing", func(off int64) error { _, err := w.v.tree.WriteAt(f, p, off); return err })
	volume := func(off int64) error { _, err := w.v.Write(f, p, off, WriteFlags{}); return err }
	run("new", volume) // all is fresh in the first epoch
	w.snapshot()
	run("marked", volume) // each block's first write marks it; then all are marked
	run("marked-again", volume)

	b.Run("unsealed", func(b *testing.B) { // each write is the first to a block that a snapshot needs
		var e *Ended
		for i := 0; b.Loop(); i++ {
			if i%blocks == 0 {
				b.StopTimer()
				if e != nil {
					e.Release(false)
				}
				e = w.barrier()
				b.StartTimer()
			}
			if err := volume(int64(i%blocks) * blockSize); err != nil {
				b.Fatal(err)
			}
		}
		if e != nil {
			e.Release(false)
		}
	})
}

// BenchmarkBarrier is the length of a barrier with many dirty inodes and blocks, without requests in flight.
func BenchmarkBarrier(b *testing.B) {
	w := newWorld(b)
	p := fill(2, blockSize)
	f := w.create("f", p)
	var paused int64
	for b.Loop() {
		for i := range int64(1000) {
			w.write(f, p, i*7*blockSize)
		}
		e, pause, err := w.v.Barrier(context.Background())
		w.must(err)
		paused += pause.Nanoseconds()
		e.Release(true)
	}
	b.ReportMetric(float64(paused)/float64(b.N), "pause-ns/op")
}
