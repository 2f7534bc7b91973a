package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"graphvol/internal/durable"
)

// Dir is a target in a directory of a local filesystem.
//
// An upload is a file in the subdirectory .tmp, locked by its writer. Commit does, in this order: fsync of the
// file, rename to its name, fsync of every directory that got a new entry. Files in .tmp that nobody has locked
// are leftovers of a process that died; OpenDir removes them. What can't be removed, there or by Abort, is tried again by the next Create.
type Dir struct {
	root string
	bufs sync.Pool // of *[]byte, see newBuffer
	mu   struct {
		sync.Mutex
		known map[string]bool // directories that are durable in their parents
		left  []string        // uploads that were given up and could not be removed
	}
}

var (
	_ Local  = (*Dir)(nil)
	_ Object = (*dirObject)(nil)
)

const tmpDir = ".tmp"

// OpenDir opens the target in the directory root, creates it (mode 0700) if it is missing, and removes
// what uploads of dead processes left behind.
func OpenDir(root string) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open target: %w", err)
	}
	d := DirThere(root)
	if err := os.MkdirAll(filepath.Join(root, tmpDir), 0o700); err != nil {
		return nil, fmt.Errorf("open target: %w", err)
	}
	for _, dir := range []string{filepath.Dir(root), root} {
		if err := durable.SyncDir(dir); err != nil {
			return nil, fmt.Errorf("open target: %w", err)
		}
	}
	if err := d.removeLeftovers(); err != nil {
		return nil, fmt.Errorf("open target %s: remove leftovers: %w", root, err)
	}
	return d, nil
}

// DirThere is a target in a directory, an absolute path, that OpenDir has made once. Nothing is written to it unless the caller does.
func DirThere(root string) *Dir {
	d := &Dir{root: root}
	d.bufs.New = func() any { return newBuffer() }
	d.mu.known = make(map[string]bool)
	return d
}

// String returns the directory.
func (d *Dir) String() string { return d.root }

func (d *Dir) removeLeftovers() error {
	entries, err := os.ReadDir(filepath.Join(d.root, tmpDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(d.root, tmpDir, e.Name())
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			d.remove(name)
		}
		f.Close()
	}
	return nil
}

// remove removes an upload, now or later.
func (d *Dir) remove(name string) error {
	err := os.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.left = append(d.mu.left, name)
	return err
}

// removeLeft tries again to remove what could not be removed.
func (d *Dir) removeLeft() {
	d.mu.Lock()
	left := d.mu.left
	d.mu.left = nil
	d.mu.Unlock()
	for _, name := range left {
		d.remove(name)
	}
}

// Create begins an upload.
func (d *Dir) Create(ctx context.Context) (Upload, error) {
	u, err := d.create(ctx)
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (d *Dir) create(ctx context.Context) (*dirUpload, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.removeLeft()
	// A sweep by another process between the creation and the lock takes the file away: then make another.
	for range 10 {
		f, err := os.CreateTemp(filepath.Join(d.root, tmpDir), "up-*")
		if err != nil {
			return nil, fmt.Errorf("begin upload: %w", err)
		}
		u := &dirUpload{dir: d, f: f, written: make(chan error, 1)}
		var st unix.Stat_t
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil &&
			unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 1 {
			return u, nil
		}
		_ = u.Abort()
	}
	return nil, fmt.Errorf("begin upload in %s: files vanish as soon as they are created", d.root)
}

// Put stores an object.
func (d *Dir) Put(ctx context.Context, name string, src Source, o PutOptions) error {
	u, err := d.create(ctx)
	if err != nil {
		return err
	}
	u.ifAbsent = o.IfAbsent
	buf := make([]byte, max(1, min(uploadBuffer, src.Size())))
	if _, err := io.CopyBuffer(onlyWriter{u}, io.NewSectionReader(src, 0, src.Size()), buf); err != nil {
		return errors.Join(fmt.Errorf("store object %s in %s: %w", name, d.root, err), u.Abort())
	}
	return u.Commit(ctx, name)
}

// onlyWriter keeps io.CopyBuffer from looking for more.
type onlyWriter struct{ io.Writer }

// Open opens an object.
func (d *Dir) Open(ctx context.Context, name string) (Object, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(d.root, name))
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open object", Path: f.Name(), Err: fs.ErrNotExist}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &dirObject{f, st.Size()}, nil
}

// List walks the directories that can hold names with the prefix.
func (d *Dir) List(ctx context.Context, prefix string) ([]Info, error) {
	var out []Info
	start := filepath.Join(d.root, filepath.FromSlash(path.Dir("/"+prefix+"x")))
	err := filepath.WalkDir(start, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(d.root, p)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == tmpDir {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasPrefix(rel, prefix) || !e.Type().IsRegular() || CheckName(rel) != nil {
			return nil
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		out = append(out, Info{Name: rel, Size: st.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list target %s: %w", d.root, err)
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove removes objects. They may come back after a power cut until SyncRemoved returns.
func (d *Dir) Remove(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(d.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("remove object: %w", err)
		}
	}
	return nil
}

// SyncRemoved makes removals durable.
func (d *Dir) SyncRemoved(ctx context.Context, dir string) error {
	if err := CheckName(dir); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Join(d.root, dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make removals durable: %w", err)
	}
	return nil
}

// makeParents creates the directories above name and makes them durable.
func (d *Dir) makeParents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.known[dir] {
		return nil
	}
	done := ""
	for elem := range strings.SplitSeq(dir, "/") {
		parent := filepath.Join(d.root, done)
		done = path.Join(done, elem)
		if d.mu.known[done] {
			continue
		}
		if err := os.Mkdir(filepath.Join(d.root, done), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Also when it was there: whoever made it may have died before its own fsync.
		if err := durable.SyncDir(parent); err != nil {
			return err
		}
		d.mu.known[done] = true
	}
	return nil
}

type dirObject struct {
	f    *os.File
	size int64
}

func (o *dirObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return o.f.ReadAt(p, off)
}

func (o *dirObject) Close() error { return o.f.Close() }
func (o *dirObject) Size() int64  { return o.size }
