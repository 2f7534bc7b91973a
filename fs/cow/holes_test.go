package cow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// A snapshot has the holes and the data of its barrier, whatever is written, punched or cut while it is sealed.
func TestHolesAreThoseOfTheBarrier(t *testing.T) {
	w := newWorld(t)
	w.snapshot()
	f := w.create("f", fill(1, 2*blockSize)) // blocks 0 and 1; 2 to 5 are a hole
	w.write(f, fill(0, blockSize), 6*blockSize)
	w.write(f, fill(1, blockSize+1), 8*blockSize) // 8 and one byte of 9
	first := w.barrier()
	defer first.Release(false)

	w.write(f, fill(2, 10), 3*blockSize+5) // a hole becomes data
	w.must(w.v.Fallocate(Caller{}, f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, blockSize))
	w.must(w.v.Fallocate(Caller{}, f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 6*blockSize, blockSize))
	second := w.barrier()
	defer second.Release(false)
	w.write(f, fill(3, 10*blockSize), 0)

	for _, c := range []struct {
		e    *Ended
		want string
	}{
		{first, "0-2 6-7 8-10 "},
		{second, "1-2 3-4 8-10 "},
	} {
		if got := dataBlocks(t, c.e, f); got != c.want {
			t.Errorf("epoch %d: data in blocks %s, want %s", c.e.Epoch(), got, c.want)
		}
	}
}

// Blocks that are allocated while a snapshot is sealed, and read then, count as data with some filesystems. They were a hole.
func TestAllocatingLeavesTheBarriersHoles(t *testing.T) {
	for _, mode := range []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE} {
		w := newWorld(t)
		w.snapshot()
		f := w.create("f", fill(1, blockSize))
		w.write(f, fill(1, blockSize), 4*blockSize)
		w.must(w.v.Fallocate(Caller{}, f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4*blockSize, blockSize)) // dirty, and a hole
		w.write(f, fill(1, blockSize), 5*blockSize)
		e := w.barrier()
		err := w.v.Fallocate(Caller{}, f, mode, blockSize, 10*blockSize)
		if errors.Is(err, unix.EOPNOTSUPP) {
			e.Release(false)
			continue
		}
		w.must(err)
		if _, err := w.v.Read(f, make([]byte, 11*blockSize), 0); err != nil {
			t.Fatal(err)
		}
		if got, want := dataBlocks(t, e, f), "0-1 5-6 "; got != want {
			t.Errorf("mode %#x: data in blocks %s, want %s", mode, got, want)
		}
		e.Release(false)
	}
}

// dataBlocks lists a file's ranges of data, in blocks, adjacent ones joined.
func dataBlocks(t *testing.T, e *Ended, ino uint64) (out string) {
	t.Helper()
	var from, to int64
	flush := func() {
		if to > from {
			out += fmt.Sprintf("%d-%d ", from, to)
		}
	}
	for off := int64(0); ; {
		start, end, err := e.NextData(context.Background(), ino, off)
		if errors.Is(err, io.EOF) {
			flush()
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if start/blockSize != to {
			flush()
			from = start / blockSize
		}
		off, to = end, (end+blockSize-1)/blockSize
	}
}
