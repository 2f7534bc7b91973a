package crash

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestOracle: what a power cut may leave is accepted, and everything else is noticed.
func TestOracle(t *testing.T) {
	for _, c := range []struct {
		name string
		may  bool
		hurt func(dir string) error
	}{
		{"nothing", true, func(string) error { return nil }},
		{"synced block", false, overwrite("common/file", 3)},
		{"synced name", false, remove("common/file")},
		{"synced size", false, func(dir string) error { return os.Truncate(filepath.Join(dir, "common/file"), 5000) }},
		{"synced mode", false, func(dir string) error { return os.Chmod(filepath.Join(dir, "common/file"), 0o640) }},
		{"other inode", false, func(dir string) error {
			p, err := os.ReadFile(filepath.Join(dir, "common/file"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "new"), p, 0o600),
				os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "common/file")))
		}},
		{"name that nobody made", false, func(dir string) error { return os.WriteFile(filepath.Join(dir, "w0/x"), nil, 0o600) }},
		{"written block", true, func(dir string) error { return writeAt(filepath.Join(dir, "w0/new"), make([]byte, blockSize), 0) }},
		{"written block torn", true, func(dir string) error {
			return writeAt(filepath.Join(dir, "w0/new"), make([]byte, sectorSize), sectorSize)
		}},
		{"written block with what nobody wrote", false, overwrite("w0/new", 0)},
		{"written name", true, remove("w0/new")},
		{"renamed back", true, func(dir string) error { return os.Rename(filepath.Join(dir, "w0/b"), filepath.Join(dir, "w0/a")) }},
		{"renamed and lost", false, remove("w0/b")},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := oracleWithFiles(t, dir)
			if err := c.hurt(dir); err != nil {
				t.Fatal(err)
			}
			if err := o.Check(dir); (err == nil) != c.may {
				t.Errorf("the oracle says: %v", err)
			}
			if err := o.Check(dir); c.may && err != nil {
				t.Errorf("the second time it says: %v", err)
			}
		})
	}
}

// oracleWithFiles makes common/file, all synced; w0/new, not synced; and w0/b, whose name w0/a was synced.
func oracleWithFiles(t *testing.T, dir string) *Oracle {
	o := New()
	l, err := NewLoad(o, dir, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	w := l.workers[0]
	a := target{place: w.roots[0], name: "a", obj: newObject(false, 0o600)}
	fresh := target{place: w.roots[0], name: "new", obj: newObject(false, 0o600)}
	b := target{place: w.roots[0], name: "b"}
	err = errors.Join(
		w.make(a, func(f *os.File) error { return nil }), w.syncDir(a.place), w.move(a, b),
		w.make(fresh, func(f *os.File) error { return w.writeAt(f, fresh, 0, blockSize) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func overwrite(name string, block int64) func(string) error {
	return func(dir string) error { return writeAt(filepath.Join(dir, name), []byte("damage"), block*blockSize) }
}

func remove(name string) func(string) error {
	return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
}

func writeAt(path string, p []byte, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, off)
	return errors.Join(err, f.Close())
}

// TestReusedInode: a directory whose making had not returned has an inode number that a removed one of the same name had. It is the one that it looks like.
func TestReusedInode(t *testing.T) {
	for mode, fits := range map[os.FileMode]bool{0o755: true, 0o746: true, 0o700: false} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		o := New()
		old, again := newObject(true, 0o746), newObject(true, 0o755)
		if err := o.identify(old, path); err != nil {
			t.Fatal(err)
		}
		h := o.mu.root.name("x")
		h.first = old
		h.ask(nil)
		h.ask(again)
		if err := o.Check(dir); (err == nil) != fits {
			t.Errorf("with mode %o: %v", mode, err)
		}
	}
}
