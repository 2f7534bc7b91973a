package epoch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"
)

const (
	bitsSuffix  = ".bits"
	namesSuffix = ".names"
	tmpSuffix   = ".tmp" // of a bits file that Create hasn't finished
)

func bitsPath(dir string, n uint64) string {
	return filepath.Join(dir, strconv.FormatUint(n, 10)+bitsSuffix)
}

func namesPath(dir string, n uint64) string {
	return filepath.Join(dir, strconv.FormatUint(n, 10)+namesSuffix)
}

// List returns the numbers of the epochs that have files in dir, ascending. A directory that doesn't exist has none.
func List(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing epochs: %w", err)
	}
	var all []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), bitsSuffix)
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil && strconv.FormatUint(n, 10) == name {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// DeleteRests removes what a Create or Delete that came to no end has left: names without bits, and bits that have no name yet. No epoch may be
// about to be created.
func DeleteRests(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing epochs: %w", err)
	}
	has := make(map[string]bool, len(entries))
	for _, e := range entries {
		has[e.Name()] = true
	}
	var errs error
	for name := range has {
		names, ok := strings.CutSuffix(name, namesSuffix)
		if ok && !has[names+bitsSuffix] || strings.HasSuffix(name, bitsSuffix+tmpSuffix) {
			errs = errors.Join(errs, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errs
}

// Delete removes the files of an epoch. It is no error if there are none.
func Delete(dir string, n uint64) error {
	var errs error
	for _, path := range []string{bitsPath(dir, n), bitsPath(dir, n) + tmpSuffix, namesPath(dir, n)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// Create begins an epoch with files in dir, which must exist. If they can't be made or mapped (a full disk, say),
// the epoch is in memory, and DurableErr tells why. The only error is fs.ErrExist: the epoch has files already.
func Create(dir string, n uint64) (*Epoch, error) {
	if _, err := os.Lstat(bitsPath(dir, n)); err == nil {
		return nil, fmt.Errorf("creating epoch %d: %s: %w", n, bitsPath(dir, n), fs.ErrExist)
	}
	e := newEpoch(n)
	e.dir = dir
	if err := e.create(); err != nil {
		e.Close()
		_ = Delete(dir, n) // what is left would not be loaded
		e = memory(n)
		e.fail(err)
	}
	return e, nil
}

// create makes the files. The bits get their name last: where they are, all is.
func (e *Epoch) create() error {
	tmp := bitsPath(e.dir, e.n) + tmpSuffix
	if err := e.createFile(&e.names, namesPath(e.dir, e.n), fileNames); err != nil {
		return err
	}
	if err := e.createFile(&e.bits, tmp, fileBits); err != nil {
		return err
	}
	return os.Rename(tmp, bitsPath(e.dir, e.n))
}

// createFile makes a file with its header, and the arena's first segment of it.
func (e *Epoch) createFile(a *arena, path string, file uint32) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	nocow(f)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.file = f
	p, _ := a.allocLocked(headerLen)
	if a.mu.failed {
		return *e.failure.Load()
	}
	h := (*header)(p)
	left := e.maps.Do(func() {
		h.version, h.epoch, h.file, h.flags = FormatVersion, e.n, file, flagSums
		h.sum = sum(magic, FormatVersion, e.n, uint64(file))
		atomic.StoreUint64(&h.magic, magic)
	})
	if left {
		return errDisk
	}
	e.headers[file-1] = h
	return nil
}

// openFile maps a file that createFile made.
func (e *Epoch) openFile(a *arena, path string, file uint32) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.file = f
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkHeader(f, path, e.n, file); err != nil {
		return err
	}
	for k := 0; segmentEnd(k) <= uint64(st.Size()); k++ {
		a.growLocked()
		if a.mu.failed {
			return fmt.Errorf("%s: %w", path, *e.failure.Load())
		}
	}
	if len(a.mu.segs) == 0 {
		return &CorruptError{path, "cut short"}
	}
	e.headers[file-1] = (*header)(unsafe.Pointer(&a.mu.segs[0][0]))
	return nil
}

// checkHeader reads the header without mapping it.
func checkHeader(f *os.File, path string, n uint64, file uint32) error {
	var h header
	p := unsafe.Slice((*byte)(unsafe.Pointer(&h)), headerLen)
	if _, err := f.ReadAt(p, 0); err != nil {
		return &CorruptError{path, "no header: " + err.Error()}
	}
	switch {
	case h.magic != magic:
		return &CorruptError{path, "not a file of an epoch, or of a machine with another byte order"}
	case h.version != FormatVersion:
		return fmt.Errorf("%s has format version %d, this software reads version %d: %w", path, h.version, FormatVersion, ErrNewerFormat)
	case h.sum != h.wantSum() || h.epoch != n || h.file != file:
		return &CorruptError{path, "wrong header"}
	}
	return nil
}

// writeNameHead finishes a record of the names file.
func writeNameHead(p unsafe.Pointer, k kind, ino, parent uint64, name []byte) {
	word := uint32(k)<<16 | uint32(len(name))
	*(*uint32)(unsafe.Add(p, 4)) = sumBytes(word, ino, parent, name)
	*(*uint64)(unsafe.Add(p, 8)) = ino
	*(*uint64)(unsafe.Add(p, 16)) = parent
	atomic.StoreUint32((*uint32)(p), word)
}

// nameSize is the length of the record of a name.
func nameSize(name int) uint64 {
	return (nameHead + uint64(name) + nameAlign - 1) &^ (nameAlign - 1)
}

// readNameHead is for records that are known to be whole.
func readNameHead(p unsafe.Pointer) (k kind, length, ino, parent uint64) {
	word := *(*uint32)(p)
	return kind(word >> 16), uint64(word & 0xffff), *(*uint64)(unsafe.Add(p, 8)), *(*uint64)(unsafe.Add(p, 16))
}
