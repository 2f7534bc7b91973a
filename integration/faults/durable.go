package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// durableFiles is what would be found after a power cut, of each file that was opened.
type durableFiles struct {
	mu struct {
		sync.Mutex
		on     bool
		files  map[uint64]*durableFile           // by inode number
		onSync func(path string, content []byte) // may be nil
	}
}

// durableFile is a file's content as of the last successful fsync, and what would be durable after the next.
type durableFile struct {
	content []byte
	size    int64
	dirty   []span
}

type span struct{ off, n int64 }

// Track makes the disk remember what is durable. onSync, if any, is called after each successful fsync of a file, with what is durable of it
// then; it must neither keep nor change the content, nor use the disk.
func (d *Disk) Track(onSync func(path string, content []byte)) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	d.files.mu.on, d.files.mu.onSync = true, onSync
	d.files.mu.files = make(map[uint64]*durableFile)
}

// CutPower leaves in the disk's files what is durable of them, and stops tracking. The disk must be unmounted. Names stay as they are.
func (d *Disk) CutPower() error {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	d.files.mu.on = false
	return filepath.WalkDir(d.Real, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if f := d.files.mu.files[info.Sys().(*syscall.Stat_t).Ino]; f != nil {
			return os.WriteFile(path, f.content, info.Mode())
		}
		return nil
	})
}

// change calls fn for the inode of a node, if it is known.
func (d *Disk) change(node uint64, fn func(*durableFile)) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	if f := d.files.mu.files[d.names.inode(node)]; d.files.mu.on && f != nil {
		fn(f)
	}
}

// opened makes a file known with what it has. The number of one that was made may have been another's.
func (d *Disk) opened(node uint64, path string, made bool) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	ino := d.names.inode(node)
	if !d.files.mu.on || d.files.mu.files[ino] != nil && !made {
		return
	}
	content, err := os.ReadFile(filepath.Join(d.Real, path))
	if err == nil {
		d.files.mu.files[ino] = &durableFile{content: content, size: int64(len(content))}
	}
}

func (d *Disk) written(node uint64, off, n int64) {
	d.change(node, func(f *durableFile) {
		f.dirty = append(f.dirty, span{off, n})
		f.size = max(f.size, off+n)
	})
}

func (d *Disk) truncated(node uint64, size int64) {
	d.change(node, func(f *durableFile) {
		f.dirty = append(f.dirty, span{size, max(0, f.size-size)}) // what is written there later comes after zeros
		f.size = size
	})
}

// synced ends an fsync. If it failed, what it should have made durable never will be, unless it is written again.
func (d *Disk) synced(node uint64, path string, ok bool) (err error) {
	d.change(node, func(f *durableFile) {
		if !ok {
			f.dirty = nil
			return
		}
		if err = f.take(filepath.Join(d.Real, path)); err == nil && d.files.mu.onSync != nil {
			d.files.mu.onSync(path, f.content)
		}
	})
	return err
}

// take makes durable what was written.
func (f *durableFile) take(path string) error {
	if len(f.dirty) == 0 {
		return nil
	}
	real, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has no name any more
	}
	if err != nil {
		return err
	}
	defer real.Close()
	f.resize(f.size)
	for _, s := range f.dirty {
		end := min(s.off+s.n, f.size)
		if s.off >= end {
			continue // cut off since
		}
		if _, err := real.ReadAt(f.content[s.off:end], s.off); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	f.dirty = nil
	return nil
}

func (f *durableFile) resize(n int64) {
	if n <= int64(len(f.content)) {
		f.content = f.content[:n:n]
		return
	}
	f.content = append(f.content, make([]byte, n-int64(len(f.content)))...)
}
