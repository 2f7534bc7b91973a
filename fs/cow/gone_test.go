package cow

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"

	"graphvol/fs/cow/backing"
)

// failing makes a removal that does something in the middle, and then fails.
func failing(why syscall.Errno, meanwhile func()) func(backing.Caller, uint64, string) (backing.Removal, error) {
	return func(backing.Caller, uint64, string) (backing.Removal, error) {
		meanwhile()
		return backing.Removal{}, why
	}
}

// A directory that can't be removed since it isn't empty doesn't look empty to a seal meanwhile, nor does what happens in it then
// go unsaved.
func TestDirectoryThatStays(t *testing.T) {
	w := newWorld(t)
	a, err := w.v.Mkdir(Caller{}, w.v.Root(), "d", 0o755)
	w.must(err)
	for _, name := range []string{"kept", "unlinked"} {
		_, err := w.v.Create(Caller{}, a.Ino, name, syscall.O_RDWR, 0o600)
		w.must(err)
	}
	e := w.barrier()
	defer e.Release(false)
	has := func(when, name string, want bool) {
		t.Helper()
		if _, ok, err := e.Entry(context.Background(), a.Ino, name); err != nil || ok != want {
			t.Errorf("%s: name %q: %v, %v; want %v", when, name, ok, err, want)
		}
	}
	_, err = w.v.remove(Caller{}, w.v.Root(), "d", failing(syscall.ENOTEMPTY, func() {
		has("while it is tried", "kept", true)
		if list, err := e.Entries(context.Background(), a.Ino); err != nil || len(list) != 2 {
			t.Errorf("while it is tried: names %v, %v; want 2", list, err)
		}
		_, err := w.v.Unlink(Caller{}, a.Ino, "unlinked")
		w.must(err)
	}))
	if !errors.Is(err, syscall.ENOTEMPTY) {
		t.Fatal(err)
	}
	has("afterwards", "kept", true)
	has("afterwards", "unlinked", true)
}

// The same for a directory that is empty, and gets a name while its removal fails.
func TestEmptyDirectoryThatStays(t *testing.T) {
	w := newWorld(t)
	a, err := w.v.Mkdir(Caller{}, w.v.Root(), "d", 0o755)
	w.must(err)
	_, err = w.v.Create(Caller{}, a.Ino, "f", syscall.O_RDWR, 0o600)
	w.must(err)
	_, err = w.v.Unlink(Caller{}, a.Ino, "f")
	w.must(err)
	e := w.barrier()
	defer e.Release(false)
	_, err = w.v.remove(Caller{}, w.v.Root(), "d", failing(syscall.EIO, func() {
		_, err := w.v.Create(Caller{}, a.Ino, "f", syscall.O_RDWR, 0o600)
		w.must(err)
	}))
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if _, ok, err := e.Entry(context.Background(), a.Ino, "f"); err != nil || ok {
		t.Errorf("name made after the barrier: %v, %v", ok, err)
	}
}

// A file whose removal fails: what was written to its hole meanwhile isn't in the snapshot.
func TestFileThatStays(t *testing.T) {
	w := newWorld(t)
	ino := w.create("f", fill(1, blockSize))
	w.write(ino, fill(3, blockSize), 2*blockSize)
	e := w.barrier()
	_, err := w.v.remove(Caller{}, w.v.Root(), "f", failing(syscall.EIO, func() {
		w.write(ino, fill(2, blockSize), blockSize)
	}))
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	im, err := w.seal(e)
	w.must(err)
	want := append(append(fill(1, blockSize), make([]byte, blockSize)...), fill(3, blockSize)...)
	if got := im.inodes[ino].bytes(); !bytes.Equal(got, want) {
		t.Errorf("blocks begin with %d, %d, %d; want 1, 0, 3", got[0], got[blockSize], got[2*blockSize])
	}
}
