package targettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"

	"graphvol/chunkstore/target"
)

// testStream: who reads an object in order gets the same bytes as who reads pieces, from anywhere to the end, for as long as the context lasts.
func testStream(t *testing.T, tg target.Target) {
	const size = 300<<10 + 77
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i / 251 * 7)
	}
	put(t, tg, "packs/ab/o.pack", want)
	o, err := tg.Open(t.Context(), "packs/ab/o.pack")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	s, ok := o.(target.Streamer)
	if !ok {
		return // it need not have any
	}
	for _, off := range []int64{0, 1, 1 << 16, 1<<16 + 1, 4 << 16, size - 1, size} {
		in, err := s.Stream(t.Context(), off)
		if errors.Is(err, errors.ErrUnsupported) {
			return // what is below it has none
		}
		if err != nil {
			t.Fatalf("stream from %d: %v", off, err)
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, want[off:]) {
			t.Errorf("stream from %d: %d bytes, %v", off, len(got), err)
		}
		if err := in.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	for _, off := range []int64{-1, size + 1} {
		if in, err := s.Stream(t.Context(), off); err == nil {
			in.Close()
			t.Errorf("stream from %d of %d bytes", off, size)
		}
	}
	testStreamEnds(t, tg, s)
}

// testStreamEnds: a stream that was closed early, whose context has ended, or whose object is another one now.
func testStreamEnds(t *testing.T, tg target.Target, s target.Streamer) {
	ctx, cancel := context.WithCancel(t.Context())
	in, err := s.Stream(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 10)); err != nil {
		t.Errorf("read: %v", err)
	}
	cancel()
	if err := in.Close(); err != nil {
		t.Errorf("close in the middle: %v", err)
	}
	if in, err := s.Stream(ctx, 0); err == nil {
		if _, err = io.ReadAll(in); err == nil {
			t.Error("a stream outlives its context")
		}
		in.Close()
	}
	put(t, tg, "packs/ab/o.pack", []byte("another one"))
	in, err = s.Stream(t.Context(), 1)
	if err == nil {
		defer in.Close()
		var p []byte
		if p, err = io.ReadAll(in); err == nil && bytes.HasSuffix([]byte("another one"), p) {
			t.Errorf("of an object that was replaced the new bytes are read: %q", p)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an object that was replaced: %v", err)
	}
}
