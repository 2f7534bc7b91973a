package index

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"graphvol/chunkstore"
)

// BenchmarkChunks20000 enters 20,000 chunks into an index that has so many already.
func BenchmarkChunks20000(b *testing.B) {
	for _, have := range []int{0, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(have), func(b *testing.B) {
			path := testPath(b)
			db, err := Open(path, Options{})
			if err != nil {
				b.Fatal(err)
			}
			seed := uint64(0)
			for n := 0; n < have; n += 100_000 {
				seed++
				if err := db.Relocate(located(seed, 100_000), nil); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				b.StopTimer()
				seed++
				chunks := located(seed, 20_000)
				b.StartTimer()
				if err := db.Relocate(chunks, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if st, err := os.Stat(path); err == nil {
				n := 0
				_ = db.ForEachChunk(func(chunkstore.ID, chunkstore.Location) error { n++; return nil })
				b.ReportMetric(float64(st.Size())/float64(n), "filebytes/chunk")
			}
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkOpen1000000 opens and closes an index of a million chunks: some 120 GiB.
func BenchmarkOpen1000000(b *testing.B) {
	path := testPath(b)
	db, err := Open(path, Options{Unsynced: true})
	if err != nil {
		b.Fatal(err)
	}
	for seed := range uint64(10) {
		if err := db.Relocate(located(seed, 100_000), nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(db.Sync(), db.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := Open(path, Options{})
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err == nil {
		b.ReportMetric(float64(st.Size()), "filebytes")
	}
}

func BenchmarkLocate(b *testing.B) {
	db := open(b, testPath(b))
	chunks := located(1, 100_000)
	if err := db.Relocate(chunks, nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, ok, err := db.Locate(chunks[n%len(chunks)].ID); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkPutEpoch100000(b *testing.B) {
	db := open(b, testPath(b))
	var all []*Dirty
	for ino := range uint64(100_000) {
		d := goldenDirty()
		d.Ino = ino
		all = append(all, d)
	}
	for b.Loop() {
		err := db.PutEpoch(1, func(yield func(*Dirty) bool) {
			for _, d := range all {
				if !yield(d) {
					return
				}
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
