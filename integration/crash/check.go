package crash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const maxDifferences = 20

// Check compares a directory with what a power cut may have left of it, takes what it finds for durable, and lets a load begin again.
func (o *Oracle) Check(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := &checker{top: dir, found: map[*object]string{}}
	all := map[*object]string{}
	reachable(o.mu.root, "", all)
	c.visit(dir, o.mu.root)
	for f, path := range all {
		if _, ok := c.found[f]; !ok && f.named && !f.removed {
			c.differ(path, f, "inode %d was there durably, nobody removed it, and it is under none of the names that it had", f.ino)
		}
	}
	o.cut.Store(false)
	return errors.Join(c.diffs...)
}

// reachable lists everything that the disk may have, with one of its paths each.
func reachable(d *object, path string, all map[*object]string) {
	for name, h := range d.names {
		for _, f := range h.all() {
			if _, ok := all[f]; f == nil || ok {
				continue
			}
			all[f] = path + "/" + name
			reachable(f, path+"/"+name, all)
		}
	}
}

type checker struct {
	top   string
	found map[*object]string
	diffs []error
}

func (c *checker) differ(path string, f *object, format string, args ...any) {
	if len(c.diffs) >= maxDifferences {
		return
	}
	text := fmt.Sprintf(format, args...)
	if f != nil && len(f.log) > 0 {
		text += "; the latest calls:\n        " + strings.Join(f.log, "\n        ")
	}
	c.diffs = append(c.diffs, fmt.Errorf("%s: %s", strings.TrimPrefix(path, c.top), text))
}

func (c *checker) visit(path string, f *object) {
	c.found[f] = path
	f.removed = false
	if f.dir {
		c.directory(path, f)
	} else {
		c.file(path, f)
	}
	c.attributes(path, f)
}

func (c *checker) directory(path string, d *object) {
	list, err := os.ReadDir(path)
	if err != nil {
		c.differ(path, d, "%v", err)
		return
	}
	for _, e := range list {
		if d.names[e.Name()] == nil {
			c.differ(path+"/"+e.Name(), d, "nobody has made this")
		}
	}
	for name, h := range d.names {
		c.name(path+"/"+name, d, h)
	}
}

// name finds out what a name means.
func (c *checker) name(path string, d *object, h *history[*object]) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		c.differ(path, d, "lstat: %v", err)
		return
	}
	var fits []*object
	for _, f := range h.all() {
		if f == nil && err != nil {
			h.settle(nil)
			return
		}
		if f != nil && err == nil && (f.ino == st.Ino || f.ino == 0) && f.dir == (st.Mode&unix.S_IFMT == unix.S_IFDIR) {
			fits = append(fits, f)
		}
	}
	if len(fits) == 0 {
		c.differ(path, d, "means inode %d (%v), but should mean one of: %s", st.Ino, err, numbers(h.all()))
		return
	}
	f := c.choose(path, fits)
	f.ino, f.named = st.Ino, true
	h.settle(f)
	if _, ok := c.found[f]; !ok {
		c.visit(path, f)
	}
}

// choose picks the object, of several that have had one inode number.
func (c *checker) choose(path string, fits []*object) *object {
	for _, f := range fits {
		if _, ok := c.found[f]; ok {
			return f
		}
	}
	for _, f := range fits {
		try := &checker{top: c.top, found: map[*object]string{}}
		try.tryOn(path, f)
		if len(try.diffs) == 0 {
			return f
		}
	}
	return fits[0]
}

// tryOn compares what is at path with f, which stays as it is.
func (c *checker) tryOn(path string, f *object) {
	if f.dir {
		list, _ := os.ReadDir(path)
		for _, e := range list {
			if f.names[e.Name()] == nil {
				c.differ(path, f, "no such name")
			}
		}
		g := *f
		c.attributes(path, &g)
		return
	}
	g := *f
	g.blocks = make(map[int64]*history[block], len(f.blocks))
	for n, h := range f.blocks {
		copied := *h
		g.blocks[n] = &copied
	}
	c.visit(path, &g)
}

func numbers(fs []*object) string {
	var list []string
	for _, f := range fs {
		if f == nil {
			list = append(list, "nothing")
		} else {
			list = append(list, fmt.Sprintf("inode %d", f.ino))
		}
	}
	return strings.Join(list, ", ")
}

func (c *checker) attributes(path string, f *object) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		c.differ(path, f, "lstat: %v", err)
		return
	}
	if path != c.top {
		settle(c, path, f, "mode", &f.mode, st.Mode&0o7777)
	}
	val := make([]byte, 256)
	n, err := unix.Lgetxattr(path, xattrName, val)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		c.differ(path, f, "%s: %v", xattrName, err)
		return
	}
	settle(c, path, f, xattrName, &f.xattr, string(val[:max(n, 0)]))
}

const xattrName = "user.crash"

func settle[T comparable](c *checker, path string, f *object, what string, h *history[T], got T) {
	for _, v := range h.all() {
		if v == got {
			h.settle(v)
			return
		}
	}
	c.differ(path, f, "%s is %v, but should be one of %v", what, got, h.all())
}

func (c *checker) file(path string, f *object) {
	file, err := os.Open(path)
	if err != nil {
		c.differ(path, f, "%v", err)
		return
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		c.differ(path, f, "%v", err)
		return
	}
	c.size(path, f, size)
	seen := map[int64]bool{}
	err = eachDataBlock(file, size, func(n int64, p []byte) {
		seen[n] = true
		c.block(path, f, n, p)
	})
	if err != nil {
		c.differ(path, f, "%v", err)
	}
	for n := range f.blocks {
		if !seen[n] {
			c.block(path, f, n, make([]byte, min(max(size-n*blockSize, 0), blockSize)))
		}
	}
}

func (c *checker) size(path string, f *object, size int64) {
	for _, s := range f.size.all() {
		if s.least <= size && size <= s.size {
			f.size.settle(span{size, size})
			return
		}
	}
	c.differ(path, f, "size %d, but should be one of %v", size, f.size.all())
}
