package kill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// namesClient makes, renames, exchanges and removes files and directories: requests that must not be done twice, and must not be answered as if they had
// been done by somebody else.
func namesClient(t testing.TB, dir string) *client {
	c := &client{}
	const keep = 8
	c.step = func(i uint64) error {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i%keep))
		if i >= keep {
			if err := c.removeNames(d); err != nil {
				return err
			}
		}
		return c.makeNames(d)
	}
	c.check = func(dir string) error {
		want := map[string]bool{}
		for i := range min(c.steps.Load(), keep) {
			want[fmt.Sprintf("d%d", i)] = true
		}
		err := sameNames(dir, want)
		for name := range want {
			d := filepath.Join(dir, name)
			err = errors.Join(err, sameNames(d, map[string]bool{"x": true, "y": true, "s": true, "sub": true}), sameNames(filepath.Join(d, "sub"), nil),
				sameFile(filepath.Join(d, "x"), []byte("b")), sameFile(filepath.Join(d, "y"), []byte("a")))
			if to, lerr := os.Readlink(filepath.Join(d, "s")); lerr != nil || to != "x" {
				err = errors.Join(err, fmt.Errorf("the link leads to %q: %w", to, lerr))
			}
		}
		return err
	}
	return c
}

// makeNames leaves x with content b, y with content a, a link s and a directory sub.
func (c *client) makeNames(d string) error {
	at := func(name string) string { return filepath.Join(d, name) }
	create := func(name, content string) func() error {
		return func() error {
			f, err := os.OpenFile(at(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_, err = f.WriteString(content)
			return errors.Join(err, f.Close())
		}
	}
	for _, do := range []struct {
		what string
		do   func() error
	}{
		{"mkdir", func() error { return unix.Mkdir(d, 0o755) }},
		{"create a", create("a", "a")},
		{"create b", create("b", "b")},
		{"create again", expect(unix.EEXIST, create("b", ""))},
		{"symlink", func() error { return unix.Symlink("x", at("s")) }},
		{"mkdir sub", func() error { return unix.Mkdir(at("sub"), 0o755) }},
		{"mkdir again", expect(unix.EEXIST, func() error { return unix.Mkdir(at("sub"), 0o755) })},
		{"rename", func() error { return unix.Rename(at("a"), at("x")) }},
		{"rename without replacing", func() error { return unix.Renameat2(0, at("b"), 0, at("y"), unix.RENAME_NOREPLACE) }},
		{"rename onto", expect(unix.EEXIST, func() error { return unix.Renameat2(0, at("x"), 0, at("y"), unix.RENAME_NOREPLACE) })},
		{"exchange", func() error { return unix.Renameat2(0, at("x"), 0, at("y"), unix.RENAME_EXCHANGE) }},
	} {
		if err := c.call(do.what, do.do); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) removeNames(d string) error {
	for _, name := range []string{"x", "y", "s"} {
		if err := c.call("unlink", func() error { return unix.Unlink(filepath.Join(d, name)) }); err != nil {
			return err
		}
	}
	return errors.Join(
		c.call("unlink again", expect(unix.ENOENT, func() error { return unix.Unlink(filepath.Join(d, "x")) })),
		c.call("rmdir sub", func() error { return unix.Rmdir(filepath.Join(d, "sub")) }),
		c.call("rmdir", func() error { return unix.Rmdir(d) }),
	)
}

// expect turns the one error that is right into none.
func expect(want error, request func() error) func() error {
	return func() error {
		if err := request(); !errors.Is(err, want) {
			return fmt.Errorf("the answer is %v, not %w", err, want)
		}
		return nil
	}
}

// linksClient gives one file more and fewer names, and counts them.
func linksClient(t testing.TB, dir string) *client {
	c := &client{}
	f := c.file(t, filepath.Join(dir, "first"), 0)
	name := func(i uint64) string { return filepath.Join(dir, fmt.Sprintf("l%d", i)) }
	const most = 5
	names := map[string]bool{"first": true}
	count := func() error {
		var st unix.Stat_t
		err := c.call("fstat", func() error { return unix.Fstat(int(f.Fd()), &st) })
		if err == nil && int(st.Nlink) != len(names) {
			err = fmt.Errorf("the file has %d names, %d were made", st.Nlink, len(names))
		}
		return err
	}
	c.step = func(i uint64) error {
		if i >= most {
			if err := c.call("unlink", func() error { return unix.Unlink(name(i - most)) }); err != nil {
				return err
			}
			delete(names, filepath.Base(name(i-most)))
		}
		if err := c.call("link", func() error { return unix.Link(filepath.Join(dir, "first"), name(i)) }); err != nil {
			return err
		}
		names[filepath.Base(name(i))] = true
		return errors.Join(count(), c.call("link again", expect(unix.EEXIST, func() error { return unix.Link(name(i), name(i)) })))
	}
	c.check = func(dir string) error { return sameNames(dir, names) }
	return c
}

// xattrsClient makes, replaces and removes attributes, each in the way that fails if it was done before.
func xattrsClient(t testing.TB, dir string) *client {
	c := &client{}
	path := filepath.Join(dir, "file")
	c.file(t, path, 0)
	set := func(value string, flags int) func() error {
		return func() error { return unix.Setxattr(path, "user.kill", []byte(value), flags) }
	}
	value := ""
	c.step = func(i uint64) error {
		if value != "" {
			if err := c.call("removexattr", func() error { return unix.Removexattr(path, "user.kill") }); err != nil {
				return err
			}
		}
		value = fmt.Sprint("value ", i)
		return errors.Join(
			c.call("make an xattr", set("first", unix.XATTR_CREATE)),
			c.call("make it again", expect(unix.EEXIST, set("second", unix.XATTR_CREATE))),
			c.call("replace an xattr", set(value, unix.XATTR_REPLACE)),
		)
	}
	c.check = func(dir string) error {
		got := make([]byte, 100)
		n, err := unix.Getxattr(filepath.Join(dir, "file"), "user.kill", got)
		if err == nil && string(got[:n]) != value {
			err = fmt.Errorf("the xattr is %q, not %q", got[:n], value)
		}
		return err
	}
	return c
}

// listerClient reads a long directory piece by piece through one descriptor, across servers: each name must come once.
func listerClient(t testing.TB, dir string) *client {
	c := &client{}
	const files = 3000
	want := map[string]bool{}
	for i := range files {
		name := fmt.Sprintf("a-name-that-takes-some-room-%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		want[name] = true
	}
	c.step = func(uint64) error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		seen := map[string]bool{}
		for {
			var list []string
			err := c.call("readdir", func() (err error) { list, err = d.Readdirnames(40); return err })
			if len(list) == 0 && len(seen) == files {
				return nil // io.EOF
			}
			if err != nil {
				return fmt.Errorf("after %d of %d names: %w", len(seen), files, err)
			}
			for _, name := range list {
				if seen[name] || !want[name] {
					return fmt.Errorf("the name %s comes twice, or was never made", name)
				}
				seen[name] = true
			}
		}
	}
	c.check = func(dir string) error { return sameNames(dir, want) }
	return c
}
