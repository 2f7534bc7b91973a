package agent

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockCache: a mount waits for an earlier one that is about to end, and not for ever.
func TestLockCache(t *testing.T) {
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	dir := t.TempDir()
	ending, next := open(dir), open(dir)
	if err := lockCache(t.Context(), ending, 0); err != nil {
		t.Fatal(err)
	}
	var refused *Error
	if err := lockCache(t.Context(), next, 50*time.Millisecond); !errors.As(err, &refused) || !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lockCache(ctx, next, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	got := make(chan error)
	go func() { got <- lockCache(t.Context(), next, time.Hour) }()
	select {
	case err := <-got:
		t.Fatalf("two have the lock: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := ending.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}
