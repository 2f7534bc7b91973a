package input

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// walker goes through a snapshot as find, cat, getfattr and cp do. Errors are the snapshot's right; what isn't is a call that doesn't
// return, and a tree without an end.
type walker struct {
	left  int // entries that may still come
	paths int // most elements of a path
	buf   []byte
	seen  int
	read  int64 // bytes
}

// walkBound is how long the walk through one snapshot may take.
const walkBound = time.Minute

// walk walks a snapshot as far as bound entries.
func walk(t *testing.T, dir string, bound int) *walker {
	t.Helper()
	w := &walker{left: bound, buf: make([]byte, 1<<20)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.entry(dir, 0)
	}()
	select {
	case <-done:
	case <-time.After(walkBound):
		t.Fatalf("%s: the walk hasn't ended after %v", dir, walkBound)
	}
	return w
}

func (w *walker) entry(path string, depth int) {
	if w.left--; w.left < 0 {
		return
	}
	w.seen, w.paths = w.seen+1, max(w.paths, depth)
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return
	}
	w.xattrs(path)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.dir(path, depth)
	case unix.S_IFREG:
		w.file(path, st.Size)
	case unix.S_IFLNK:
		unix.Readlink(path, w.buf)
	}
}

func (w *walker) dir(path string, depth int) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	var names []string
	for len(names) <= w.left {
		some, err := f.Readdirnames(1000)
		names = append(names, some...)
		if err != nil {
			break
		}
	}
	f.Close()
	for _, name := range names {
		if w.left < 0 {
			return
		}
		w.entry(filepath.Join(path, name), depth+1)
	}
}

// file reads at the beginning, the middle and the end, and looks for holes.
func (w *walker) file(path string, size int64) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for _, off := range []int64{0, size / 2, size - 4096, size - 1, size - 1<<20} {
		n, _ := f.ReadAt(w.buf, max(off, 0))
		w.read += int64(n)
	}
	for off, steps := int64(0), 0; steps < 100; steps++ {
		data, err := f.Seek(off, unix.SEEK_DATA)
		if err != nil {
			return
		}
		if off, err = f.Seek(data, unix.SEEK_HOLE); err != nil || off >= size {
			return
		}
	}
}

func (w *walker) xattrs(path string) {
	n, err := unix.Llistxattr(path, w.buf)
	if err != nil {
		n = 0
	}
	names := append([]byte("user.none\x00system.posix_acl_access\x00security.capability\x00"), w.buf[:n]...)
	for range 50 {
		i := 0
		for i < len(names) && names[i] != 0 {
			i++
		}
		if i == len(names) {
			return
		}
		unix.Lgetxattr(path, string(names[:i]), w.buf)
		names = names[i+1:]
	}
}

// listing describes all that lies below a directory, without following anything.
func listing(dir string) (map[string]string, error) {
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		what := fmt.Sprintf("mode %o, owner %d, size %d, mtime %v", st.Mode, st.Uid, st.Size, st.Mtim)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what += ", " + hash(raw)
		}
		out[p] = what
		return nil
	})
	return out, err
}

// bounded is a writer with an end.
type bounded struct {
	left int
	text []byte // the beginning
}

var errEndless = errors.New("more output than anybody reads")

var _ io.Writer = (*bounded)(nil)

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errEndless
	}
	b.text = append(b.text, p[:min(len(p), max(0, 64<<10-len(b.text)))]...)
	return len(p), nil
}
