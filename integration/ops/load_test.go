package ops

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	page  = 4096
	pages = 256
)

// load is a database at work: writers that never stop, whose every result counts. A writer that sees an error ends, and the test fails.
type load struct {
	t     *testing.T
	dir   string
	stop  chan struct{}
	wg    sync.WaitGroup
	steps atomic.Int64

	mu struct {
		sync.Mutex
		longest time.Duration
		of      string
		errs    []error
		want    map[string][pages]uint64 // what each page of a file must hold
	}
}

// startLoad starts the writers. check ends them.
func startLoad(t *testing.T, dir string) *load {
	t.Helper()
	l := &load{t: t, dir: dir, stop: make(chan struct{})}
	l.mu.want = make(map[string][pages]uint64)
	t.Cleanup(l.end)
	l.writer("synced", l.synced)
	l.writer("mapped", l.mapped)
	l.writer("buffered", l.buffered)
	l.writer("names", l.names)
	return l
}

// writer repeats the step that open returns, and measures each.
func (l *load) writer(name string, open func(name string) (step func(n uint64) error, end func() error)) {
	step, end := open(name)
	l.wg.Go(func() {
		defer func() { l.failed(name, end()) }()
		for n := uint64(1); ; n++ {
			select {
			case <-l.stop:
				return
			default:
			}
			start := time.Now()
			if err := step(n); err != nil {
				l.failed(name, err)
				return
			}
			l.took(name, time.Since(start))
		}
	})
}

func (l *load) failed(name string, err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.errs = append(l.mu.errs, fmt.Errorf("%s: %w", name, err))
}

func (l *load) took(name string, d time.Duration) {
	l.steps.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if d > l.mu.longest {
		l.mu.longest, l.mu.of = d, name
	}
}

// end stops the writers; it may be called twice.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// goOn waits until the writers have done some more.
func (l *load) goOn() {
	l.t.Helper()
	const more = 200
	deadline := time.Now().Add(30 * time.Second)
	for from := l.steps.Load(); l.steps.Load() < from+more; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) || l.err() != nil {
			l.t.Fatalf("the writers don't go on: %v", l.err())
		}
	}
}

func (l *load) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.mu.errs...)
}

// check ends the writers and compares every page with what was written last. It returns the longest wait of a writer.
func (l *load) check(dir string) time.Duration {
	l.t.Helper()
	l.end()
	if err := l.err(); err != nil {
		l.t.Fatalf("a writer saw: %v", err)
	}
	for name, want := range l.mu.want {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(raw) != pages*page {
			l.t.Errorf("%s: %d bytes, %v", name, len(raw), err)
			continue
		}
		for i, n := range want {
			if got := binary.LittleEndian.Uint64(raw[i*page:]); got != n {
				l.t.Errorf("%s: page %d holds write %d, want %d", name, i, got, n)
			}
		}
	}
	l.t.Logf("%d steps, longest %v (%s)", l.steps.Load(), l.mu.longest.Round(time.Millisecond), l.mu.of)
	return l.mu.longest
}

// pageOf is where write n goes.
func pageOf(n uint64) uint64 { return n * 7919 % pages }

func (l *load) file(name string) (f *os.File, want *[pages]uint64, end func() error) {
	l.t.Helper()
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Truncate(pages * page)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	want = new([pages]uint64)
	return f, want, func() error {
		l.mu.Lock()
		l.mu.want[name] = *want
		l.mu.Unlock()
		return f.Close()
	}
}

func (l *load) put(f *os.File, want *[pages]uint64, n uint64) error {
	var p [page]byte
	binary.LittleEndian.PutUint64(p[:], n)
	if _, err := f.WriteAt(p[:], int64(pageOf(n)*page)); err != nil {
		return err
	}
	want[pageOf(n)] = n
	return nil
}

// synced is a log: a write and its fdatasync.
func (l *load) synced(name string) (func(uint64) error, func() error) {
	f, want, end := l.file(name)
	return func(n uint64) error {
		if err := l.put(f, want, n); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	}, end
}

// buffered writes, reads back what it wrote some time ago, and holds a lock all the while.
func (l *load) buffered(name string) (func(uint64) error, func() error) {
	f, want, end := l.file(name)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		l.t.Fatal(err)
	}
	return func(n uint64) error {
		if err := l.put(f, want, n); err != nil {
			return err
		}
		at := pageOf(n / 2)
		if n%64 == 0 {
			unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // the next reads come from the server
		}
		var p [8]byte
		if _, err := f.ReadAt(p[:], int64(at*page)); err != nil {
			return err
		}
		if got := binary.LittleEndian.Uint64(p[:]); got != want[at] {
			return fmt.Errorf("page %d holds write %d, want %d", at, got, want[at])
		}
		return nil
	}, end
}

// mapped stores through a shared mapping.
func (l *load) mapped(name string) (func(uint64) error, func() error) {
	f, want, end := l.file(name)
	m, err := unix.Mmap(int(f.Fd()), 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		l.t.Fatal(err)
	}
	return func(n uint64) error {
		at := pageOf(n)
		binary.LittleEndian.PutUint64(m[at*page:], n)
		want[at] = n
		return unix.Msync(m[at*page:(at+1)*page], unix.MS_SYNC)
	}, func() error { return errors.Join(unix.Munmap(m), end()) }
}

// names makes files that must not exist, renames and removes them: what can't simply be done twice.
func (l *load) names(string) (func(uint64) error, func() error) {
	const keep = 64 // directories
	return func(n uint64) error {
		path := filepath.Join(l.dir, fmt.Sprintf("n%d", n))
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		to := filepath.Join(l.dir, fmt.Sprintf("m%d", n%2))
		if err := errors.Join(os.Rename(path, to), os.Link(to, path), os.Remove(path)); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o700); err != nil || n <= keep {
			return err
		}
		return os.Remove(filepath.Join(l.dir, fmt.Sprintf("n%d", n-keep)))
	}, func() error { return nil }
}
