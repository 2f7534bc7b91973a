package erasure

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"graphvol/chunkstore/target"
)

const benchSize = 32 << 20 // a pack

func benchTarget(b *testing.B, layout string) (*Target, []*fake, []byte) {
	l, err := ParseLayout(layout)
	if err != nil {
		b.Fatal(err)
	}
	fakes := newFakes(l.total())
	return over(b, layout, fakes, Options{}), fakes, random(1, benchSize)
}

// BenchmarkPut is encoding and checksums, without any disk.
func BenchmarkPut(b *testing.B) {
	for _, layout := range []string{"1+0", "1+2", "4+2", "10+4"} {
		b.Run(layout, func(b *testing.B) {
			l, _ := ParseLayout(layout)
			var members []Member
			for i := range l.total() {
				members = append(members, Member{ID: fmt.Sprint(i), Target: &sink{fake: *newFake("s")}})
			}
			tg, err := New(l, members, Options{})
			if err != nil {
				b.Fatal(err)
			}
			data := random(1, benchSize)
			b.SetBytes(benchSize)
			for b.Loop() {
				if err := tg.Put(b.Context(), "p", bytes.NewReader(data), target.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchRead(b *testing.B, layout string, lost, piece int) {
	tg, fakes, data := benchTarget(b, layout)
	mustPut(b, tg, "p", data)
	for _, m := range order(tg.ids, "p")[:lost] {
		fakes[m].restore(nil)
	}
	o, err := tg.Open(b.Context(), "p")
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, piece)
	b.SetBytes(int64(piece))
	off := int64(0)
	for b.Loop() {
		if _, err := o.ReadAt(b.Context(), p, off); err != nil {
			b.Fatal(err)
		}
		if off += int64(piece); off+int64(piece) > benchSize {
			off = 0
		}
	}
}

// BenchmarkRead reads whole objects, and ranges of 128 KiB, with all shards and without one or two data shards.
func BenchmarkRead(b *testing.B) {
	for lost := range 3 {
		b.Run(fmt.Sprintf("4+2 without %d/whole", lost), func(b *testing.B) { benchRead(b, "4+2", lost, benchSize) })
		b.Run(fmt.Sprintf("4+2 without %d/128K", lost), func(b *testing.B) { benchRead(b, "4+2", lost, 128<<10) })
	}
}

// BenchmarkRepair puts two lost shards of six anew.
func BenchmarkRepair(b *testing.B) {
	tg, fakes, data := benchTarget(b, "4+2")
	mustPut(b, tg, "p", data)
	b.SetBytes(benchSize)
	for b.Loop() {
		fakes[0].restore(map[string][]byte{})
		fakes[1].restore(map[string][]byte{})
		if err := tg.Repair(context.Background(), "p"); err != nil {
			b.Fatal(err)
		}
	}
}
