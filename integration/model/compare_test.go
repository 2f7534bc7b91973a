package model

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCompareSees: each of these small differences is found.
func TestCompareSees(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	for name, spoil := range map[string]func(p place) error{
		"a byte": func(p place) error { return patch(p.full(), 5000, "x") },
		"a byte past the end": func(p place) error {
			return patch(p.full(), p.node.content.size, "x")
		},
		"data in a hole":   func(p place) error { return patch(p.full(), 1<<20, "\x00") },
		"a hole for data":  func(p place) error { return punch(p.full()) },
		"the mode":         func(p place) error { return os.Chmod(p.full(), 0o604) },
		"the mtime":        func(p place) error { return os.Chtimes(p.full(), time.Time{}, time.Unix(1, 2)) },
		"an xattr":         func(p place) error { return unix.Setxattr(p.full(), "user.other", nil, 0) },
		"an xattr's value": func(p place) error { return unix.Setxattr(p.full(), "user.x", []byte("2"), 0) },
		"a name more":      func(p place) error { return os.Symlink("x", p.path+"/more") },
		"a name less":      func(p place) error { return os.Remove(p.full()) },
		"a link more":      func(p place) error { return os.Link(p.full(), filepath.Dir(p.path)+"/noise") },
		"a link broken":    breakLink,
	} {
		t.Run(name, func(t *testing.T) {
			r, p := example(t)
			tree, err := r.Observe()
			if err != nil {
				t.Fatal(err)
			}
			o := Options{StrictHoles: ext4(t)}
			if err := tree.Compare(r.dir, o); err != nil {
				t.Fatal("before anything was changed:", err)
			}
			if name == "data in a hole" && !o.StrictHoles {
				t.Skip("holes are exact on ext4 only")
			}
			mtimes := keepTimes(t, p, name)
			if err := spoil(p); err != nil {
				t.Fatal(err)
			}
			mtimes()
			if err := tree.Compare(r.dir, o); err == nil {
				t.Error("not seen")
			}
		})
	}
}

// keepTimes lets nothing but the difference itself be different.
func keepTimes(t *testing.T, p place, name string) func() {
	t.Helper()
	if name == "the mtime" {
		return func() {}
	}
	restore := func(path string) func() {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		return func() {
			unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	file, dir, top := restore(p.full()), restore(p.path), restore(filepath.Dir(p.path))
	return func() { file(); dir(); top() }
}

// example is a tree with one file that has data, a hole, an xattr and two names.
func example(t *testing.T) (*Run, place) {
	t.Helper()
	r, err := New(t.TempDir(), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	w := r.workers[0]
	p := place{dir: w.root, path: w.path, name: "file"}
	f, err := os.OpenFile(p.full(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.node = newNode(p.dir, unix.S_IFREG|0o644)
	p.add(p.node)
	data := make([]byte, 3*blockSize)
	for i := range data {
		data[i] = 7
	}
	for _, off := range []int64{0, 2 << 20} {
		if err := w.writeAt(f, p.node, off, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(p.full(), "user.x", []byte("1"), 0); err != nil {
		t.Skip("no xattrs here:", err)
	}
	p.node.xattrs = map[string]string{"user.x": "1"}
	if err := os.Link(p.full(), p.path+"/link"); err != nil {
		t.Fatal(err)
	}
	p.node.links++
	place{dir: p.dir, name: "link"}.add(p.node)
	return r, p
}

func patch(path string, off int64, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(s), off)
	return err
}

func punch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, blockSize, blockSize)
}

// breakLink makes an equal copy of the second name.
func breakLink(p place) error {
	link := p.path + "/link"
	raw, err := os.ReadFile(link)
	if err != nil {
		return err
	}
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.WriteFile(link, raw, 0o644)
}

func ext4(t *testing.T) bool {
	var st unix.Statfs_t
	return unix.Statfs(t.TempDir(), &st) == nil && int64(st.Type) == unix.EXT4_SUPER_MAGIC
}
