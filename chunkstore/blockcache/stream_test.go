package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

// streaming is a target whose objects can be streamed. Streams fail after a number of bytes, if one is set.
type streaming struct {
	counted
	streams, streamed atomic.Int64
	open              sync.WaitGroup
	fail              int64
}

type streamingObject struct {
	target.Object
	s *streaming
}

func (s *streaming) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := s.counted.Open(ctx, name)
	return &streamingObject{o, s}, err
}

func (o *streamingObject) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	o.s.streams.Add(1)
	o.s.open.Add(1)
	inner := o.Object.(*countedObject).Object // what is streamed doesn't count as read
	return &countedStream{Reader: io.NewSectionReader(target.Reader(ctx, inner), off, inner.Size()-off), s: o.s, left: o.s.fail}, nil
}

type countedStream struct {
	io.Reader
	s    *streaming
	left int64
}

func (c *countedStream) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.s.streamed.Add(int64(n))
	if c.left -= int64(n); c.s.fail > 0 && c.left <= 0 {
		return 0, errors.New("the connection was cut")
	}
	return n, err
}

func (c *countedStream) Close() error {
	c.s.open.Done()
	return nil
}

func newStreaming(t *testing.T, size int) (*streaming, []byte) {
	t.Helper()
	d, want := dir(t), random(size)
	put(t, d, "packs/x", want)
	return &streaming{counted: counted{Target: d}}, want
}

// TestStreamed: who reads on makes one request; who says that he will makes none but that, wherever he begins.
func TestStreamed(t *testing.T) {
	for _, c := range []struct {
		name       string
		ctx        context.Context
		begin      int64
		reads      int64
		moreThanIs int64 // bytes that are streamed before the place where he begins
	}{
		{"found", context.Background(), 0, 1, 0},
		{"said", target.ReadingOn(context.Background()), 0, 0, 0},
		{"said in the middle", target.ReadingOn(context.Background()), 7 * blockSize, 0, 7 * blockSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, want := newStreaming(t, 30<<20+5)
			o := open(t, cached(t, in, Options{}), "packs/x")
			p := make([]byte, 128<<10)
			for off := c.begin; off < o.Size(); off += int64(len(p)) {
				n, err := o.ReadAt(c.ctx, p, off)
				if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], want[off:off+int64(n)]) {
					t.Fatalf("at %d: %v", off, err)
				}
			}
			if n := in.reads.Load(); n != c.reads || in.streams.Load() != 1 {
				t.Errorf("%d reads and %d streams", n, in.streams.Load())
			}
			if n := in.streamed.Load() + in.bytes.Load(); n != o.Size()-c.begin+c.moreThanIs {
				t.Errorf("%d bytes for %d", n, o.Size()-c.begin)
			}
		})
	}
}

// TestStreamEnds: a stream that nobody wants more of ends by itself, having read a bounded amount; closing the object ends one at once.
func TestStreamEnds(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprint("closed ", closed), func(t *testing.T) {
			in, _ := newStreaming(t, 40<<20)
			c := cached(t, in, Options{})
			c.patience = time.Millisecond
			if closed {
				c.patience = time.Hour
			}
			o, err := c.Open(t.Context(), "packs/x")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.ReadAt(target.ReadingOn(t.Context()), make([]byte, 10), 0); err != nil {
				t.Fatal(err)
			}
			if closed {
				o.Close()
			} else {
				defer o.Close()
			}
			in.open.Wait()
			if n := in.streamed.Load(); n > (aheadBlocks+1)*blockSize {
				t.Errorf("%d bytes were streamed to somebody who wanted 10", n)
			}
		})
	}
}

// TestStreamFails: a stream that is cut costs no reader anything but time.
func TestStreamFails(t *testing.T) {
	in, want := newStreaming(t, 12<<20+99)
	in.fail = 3<<20 + 1000
	o := open(t, cached(t, in, Options{Memory: 3 << 20}), "packs/x")
	var wg sync.WaitGroup
	for g := range uint64(6) {
		wg.Go(func() {
			ctx := context.Background()
			if g%2 == 0 {
				ctx = target.ReadingOn(ctx)
			}
			rng := rand.New(rand.NewPCG(g, 7))
			off := rng.Int64N(int64(len(want)))
			for range 200 {
				p := make([]byte, 1+rng.IntN(300<<10))
				n, err := o.ReadAt(ctx, p, off)
				if rest := want[off:]; n != min(len(p), len(rest)) || !bytes.Equal(p[:n], rest[:n]) || (n < len(p)) != errors.Is(err, io.EOF) {
					t.Errorf("%d at %d: %d, %v", len(p), off, n, err)
					return
				}
				if off += int64(n); off >= int64(len(want)) || rng.IntN(20) == 0 {
					off = rng.Int64N(int64(len(want)))
				}
			}
		})
	}
	wg.Wait()
	if in.streams.Load() == 0 {
		t.Error("nothing was streamed")
	}
}

// TestStreamAndRest: where nothing can be read, in whatever way, the target's own error shows.
func TestStreamAndRest(t *testing.T) {
	in, _ := newStreaming(t, 2<<20)
	in.fail = 1
	outage := fmt.Errorf("away: %w", target.ErrUnavailable)
	in.err.Store(&outage)
	o := open(t, cached(t, in, Options{}), "packs/x")
	if _, err := o.ReadAt(target.ReadingOn(t.Context()), make([]byte, 10), 0); !errors.Is(err, target.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
