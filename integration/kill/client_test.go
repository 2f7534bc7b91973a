package kill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client is one of the volume's users. It stops at the first error.
type client struct {
	name  string
	step  func(i uint64) error   // some requests, the i-th time
	check func(dir string) error // all that the steps have left, in the mount or in a snapshot of it

	closers []func() error
	steps   atomic.Uint64
	meter
}

// meter notes how long requests take.
type meter struct {
	mu   sync.Mutex
	slow []window // requests that took longer than calm ones do
}

const slowRequest = 5 * time.Millisecond

// call makes one request.
func (m *meter) call(what string, request func() error) error {
	begin := time.Now()
	err := request()
	if end := time.Now(); end.Sub(begin) > slowRequest {
		m.mu.Lock()
		m.slow = append(m.slow, window{begin, end})
		m.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// clients work beside each other.
type clients struct {
	all  []*client
	stop context.CancelFunc
	wg   sync.WaitGroup
	errs []error
}

// maker makes a client in a directory of its own.
type maker func(t testing.TB, dir string) *client

func startClients(t testing.TB, mount string, makers map[string]maker) *clients {
	t.Helper()
	c := &clients{}
	t.Cleanup(c.close)
	for name, mk := range makers {
		dir := filepath.Join(mount, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cl := mk(t, dir)
		cl.name = name
		c.all = append(c.all, cl)
	}
	c.run(t)
	return c
}

// run starts them, again after end.
func (c *clients) run(t testing.TB) {
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	c.errs = make([]error, len(c.all))
	for i, cl := range c.all {
		c.wg.Go(func() { c.errs[i] = cl.run(ctx) })
	}
}

func (c *client) run(ctx context.Context) error {
	for ctx.Err() == nil {
		i := c.steps.Load()
		if err := c.step(i); err != nil {
			return fmt.Errorf("%s, step %d: %w", c.name, i, err)
		}
		c.steps.Store(i + 1)
	}
	return nil
}

// progress waits until every client has made some steps, or has failed.
func (c *clients) progress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, cl := range c.all {
		for until := cl.steps.Load() + 2; cl.steps.Load() < until && ctx.Err() == nil; {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// end waits for all of them and fails the test if one has seen an error.
func (c *clients) end(t testing.TB) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	if err := errors.Join(c.errs...); err != nil {
		t.Errorf("a client has noticed: %v", err)
	}
}

// close closes their files.
func (c *clients) close() {
	for _, cl := range c.all {
		for _, fn := range cl.closers {
			fn()
		}
		cl.closers = nil
	}
}

// check compares what the clients have written with what is there. They must rest.
func (c *clients) check(t testing.TB, root string) {
	t.Helper()
	for _, cl := range c.all {
		if err := cl.check(filepath.Join(root, cl.name)); err != nil {
			t.Errorf("%s in %s: %v", cl.name, root, err)
		}
	}
}

// counts tells how much was done.
func (c *clients) counts() string {
	var b bytes.Buffer
	for _, cl := range c.all {
		fmt.Fprintf(&b, " %s %d", cl.name, cl.steps.Load())
	}
	return b.String()
}

// stalls gives the longest request of any client around each kill, ascending.
func (c *clients) stalls(kills []window) []time.Duration {
	var slow []window
	for _, cl := range c.all {
		cl.mu.Lock()
		slow = append(slow, cl.slow...)
		cl.mu.Unlock()
	}
	return stalls(slow, kills)
}

// sameFile compares a file's content.
func sameFile(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		return fmt.Errorf("%s has %d bytes, want %d; the first difference is at %d", path, len(got), len(want), at)
	}
	return nil
}

// sameNames compares a directory's names.
func sameNames(dir string, want map[string]bool) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range list {
		if !want[e.Name()] || seen[e.Name()] {
			return fmt.Errorf("%s is there, or twice", filepath.Join(dir, e.Name()))
		}
		seen[e.Name()] = true
	}
	for name := range want {
		if !seen[name] {
			return fmt.Errorf("%s is missing", filepath.Join(dir, name))
		}
	}
	return nil
}
