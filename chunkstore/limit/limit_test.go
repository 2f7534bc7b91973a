package limit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openDir(t *testing.T) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "objects"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSuite(t *testing.T) {
	for name, l := range map[string]*Limiter{"none": nil, "any": NewLimiter(0), "fast": NewLimiter(1 << 40)} {
		t.Run(name, func(t *testing.T) {
			targettest.Run(t, func(t *testing.T) target.Target { return New(openDir(t), l, l) })
		})
	}
}

// TestRate: both directions take the time that the limit asks for, and share it where they share a limiter.
func TestRate(t *testing.T) {
	dir := openDir(t)
	synctest.Test(t, func(t *testing.T) {
		const perSecond, size = 1 << 20, 20 << 20
		l := NewLimiter(perSecond)
		tg := New(dir, l, l)
		took := func(what string, f func() error) {
			t.Helper()
			start := time.Now()
			if err := f(); err != nil {
				t.Fatal(err)
			}
			if got, want := time.Since(start), time.Duration(size/perSecond)*time.Second; got < want-time.Second || got > want+time.Second {
				t.Errorf("%s took %s, want %s", what, got, want)
			}
		}
		took("putting", func() error { return target.Put(t.Context(), tg, "a", make([]byte, size)) })
		took("reading", func() error {
			_, err := target.Get(t.Context(), tg, "a", size)
			return err
		})
		src := &source{Source: bytes.NewReader(make([]byte, size)), ctx: t.Context(), limiter: l}
		took("reading a source twice", func() error {
			for range 2 {
				if _, err := io.Copy(io.Discard, io.NewSectionReader(src, 0, size)); err != nil {
					return err
				}
			}
			return nil
		})
		if got := l.Given(); got != 3*size {
			t.Errorf("%d bytes were given out, want %d", got, 3*size)
		}
	})
}

// TestCancelled: waiting ends with the caller's patience.
func TestCancelled(t *testing.T) {
	tg := New(openDir(t), nil, NewLimiter(1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	if err := target.Put(ctx, tg, "a", make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that it would take too long", err)
	}
	cancel()
	if err := target.Put(ctx, tg, "a", make([]byte, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "50M": 50e6, "50MB/s": 50e6, "50MiB/s": 50 << 20, "1.5 GiB": 3 << 29, "64KiB": 64 << 10} {
		if got, err := ParseRate(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "fast", "-1", "5 MiB/h", "99999999999999G"} {
		if got, err := ParseRate(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}
