package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how exact a comparison is.
type Options struct {
	StrictHoles bool // blocks never written must be holes, and directories count links as ext4 does
	SyncFirst   bool // fsync each file before its holes are looked at: a write-back cache may know more than the disk
	NoTrusted   bool // trusted.* attributes are not there
	// MtimeSlack is how much later than lstat said an mtime may be that a write set, not utimensat. With its write-back
	// cache the kernel doesn't tell the server of a new mtime that lies in the same clock tick (some milliseconds) as the
	// old one; the server's own is a little later then. After a kill of the server, a write may reach the new one behind
	// the mtime that the kernel sent after it.
	MtimeSlack time.Duration

	observe, skipContent bool
}

const maxDifferences = 20

// Compare compares the directory dir with the tree and returns what differs, up to 20 lines.
func (t *Tree) Compare(dir string, o Options) error { return compare(t, dir, o) }

type comparer struct {
	Options
	top   string
	diffs []error
	inos  map[uint64]*node // of anything but directories
	seen  map[*node]uint64
}

func compare(t *Tree, dir string, o Options) error {
	c := &comparer{Options: o, top: dir, inos: map[uint64]*node{}, seen: map[*node]uint64{}}
	c.visit(dir, t.root)
	return errors.Join(c.diffs...)
}

func (c *comparer) full() bool { return len(c.diffs) >= maxDifferences }

func (c *comparer) differ(path, format string, args ...any) {
	if !c.full() {
		rel := strings.TrimPrefix(path, c.top)
		c.diffs = append(c.diffs, fmt.Errorf("%s%s: %s", c.top, rel, fmt.Sprintf(format, args...)))
	}
}

func (c *comparer) visit(path string, n *node) {
	if c.full() {
		return
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		c.differ(path, "lstat: %v", err)
		return
	}
	if st.Mode != n.mode {
		c.differ(path, "mode %o, want %o", st.Mode, n.mode)
	}
	if st.Mode&unix.S_IFMT != n.kind() {
		return
	}
	c.attributes(path, n, &st)
	c.xattrs(path, n)
	switch {
	case n.isDir():
		c.directory(path, n)
	case n.isFile() && !c.skipContent && !c.again(n):
		c.content(path, n)
	case n.isSymlink():
		if got, err := os.Readlink(path); err != nil || got != n.target {
			c.differ(path, "target %q (%v), want %q", got, err, n.target)
		}
	}
}

func (c *comparer) attributes(path string, n *node, st *unix.Stat_t) {
	if st.Uid != n.uid || st.Gid != n.gid {
		c.differ(path, "owner %d:%d, want %d:%d", st.Uid, st.Gid, n.uid, n.gid)
	}
	if c.observe && !n.known {
		n.mtime = st.Mtim
	} else if late := time.Duration(st.Mtim.Nano() - n.mtime.Nano()); late != 0 && (n.known || late < 0 || late > c.MtimeSlack) {
		c.differ(path, "mtime %d.%09d, want %d.%09d", st.Mtim.Sec, st.Mtim.Nsec, n.mtime.Sec, n.mtime.Nsec)
	}
	if n.isDir() {
		if want := uint64(2 + n.subdirs()); c.StrictHoles && uint64(st.Nlink) != want {
			c.differ(path, "%d links, want %d", st.Nlink, want)
		}
		return
	}
	if int(st.Nlink) != n.links {
		c.differ(path, "%d links, want %d", st.Nlink, n.links)
	}
	if other, ok := c.inos[st.Ino]; ok && other != n {
		c.differ(path, "inode %d is another file's too", st.Ino)
	}
	if ino, ok := c.seen[n]; ok && ino != st.Ino {
		c.differ(path, "inode %d, but another link to it has %d", st.Ino, ino)
	}
	c.inos[st.Ino] = n
	if n.isFile() && st.Size != n.content.size {
		c.differ(path, "size %d, want %d", st.Size, n.content.size)
	}
	if k := n.kind(); (k == unix.S_IFCHR || k == unix.S_IFBLK) && st.Rdev != n.rdev {
		c.differ(path, "device %x, want %x", st.Rdev, n.rdev)
	}
	if _, ok := c.seen[n]; !ok && !n.isFile() {
		c.seen[n] = st.Ino
	}
	if n.isFile() && c.skipContent {
		c.seen[n] = st.Ino
	}
}

// again: the content of another link to the same inode was compared before.
func (c *comparer) again(n *node) bool {
	_, ok := c.seen[n]
	return ok
}

func (c *comparer) xattrs(path string, n *node) {
	got, err := readXattrs(path)
	if err != nil {
		c.differ(path, "xattrs: %v", err)
		return
	}
	want := n.allXattrs()
	if c.NoTrusted {
		maps.DeleteFunc(want, func(k, _ string) bool { return strings.HasPrefix(k, "trusted.") })
	}
	if !maps.Equal(got, want) {
		c.differ(path, "xattrs %q, want %q", got, want)
	}
}

func readXattrs(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return map[string]string{}, nil
	} else if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "security.") {
			continue
		}
		val := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = string(val[:k])
	}
	return out, nil
}

func (c *comparer) directory(path string, n *node) {
	list, err := os.ReadDir(path)
	if err != nil {
		c.differ(path, "readdir: %v", err)
	}
	got := make([]string, 0, len(list))
	for _, e := range list {
		got = append(got, e.Name())
	}
	for _, name := range got {
		if _, ok := n.entries[name]; !ok && !(path == c.top && strings.HasPrefix(name, "noise")) {
			c.differ(path+"/"+name, "should not be there")
		}
	}
	for _, name := range n.names() {
		if !slices.Contains(got, name) {
			c.differ(path+"/"+name, "not listed")
		}
		c.visit(path+"/"+name, n.entries[name])
	}
}

// content compares bytes and holes: what SEEK_DATA calls a hole must be zeros in the model, and the reverse.
func (c *comparer) content(path string, n *node) {
	f, err := os.Open(path)
	if err != nil {
		c.differ(path, "%v", err)
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err == nil {
		c.seen[n] = st.Ino
	}
	if c.SyncFirst {
		if err := f.Sync(); err != nil {
			c.differ(path, "fsync: %v", err)
		}
	}
	segs, err := dataSegments(f, n.content.size)
	if err != nil {
		c.differ(path, "SEEK_DATA: %v", err)
		return
	}
	pos, before := int64(0), len(c.diffs)
	for _, s := range segs {
		c.hole(path, f, n.content, pos, s[0])
		c.data(path, f, n.content, s[0], s[1])
		pos = s[1]
	}
	c.hole(path, f, n.content, pos, n.content.size)
	if len(c.diffs) > before && len(n.content.log) > 0 {
		c.differ(path, "size %d; last operations on it:\n        %s", n.content.size, strings.Join(n.content.log, "\n        "))
	}
}

// dataSegments lists the file's data ranges below size.
func dataSegments(f *os.File, size int64) ([][2]int64, error) {
	var segs [][2]int64
	for pos := int64(0); pos < size; {
		start, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return segs, nil
		} else if err != nil {
			return nil, err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		if start < pos || end <= start {
			return nil, fmt.Errorf("data at %d ends at %d, asked from %d", start, end, pos)
		}
		segs = append(segs, [2]int64{start, min(end, size)})
		pos = end
	}
	return segs, nil
}

func (c *comparer) hole(path string, f *os.File, want *content, from, to int64) {
	if from >= to {
		return
	}
	for _, num := range want.numbers() {
		b := want.blocks[num]
		if at := num * blockSize; b != nil && *b != (block{}) && at+blockSize > from && at < to {
			lo, hi := max(at, from)-at, min(at+blockSize, to)-at
			if !allZero(b[lo:hi]) {
				c.differ(path, "hole at %d to %d, but there must be data at %d", from, to, at)
				return
			}
		}
	}
	// Sample both ends: a hole must read as zeros.
	for _, off := range []int64{from, max(from, to-blockSize)} {
		buf := make([]byte, min(blockSize, to-off))
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			c.differ(path, "read at %d: %v", off, err)
		} else if !allZero(buf) {
			c.differ(path, "hole at %d reads as data", off)
		}
	}
}

func (c *comparer) data(path string, f *os.File, want *content, from, to int64) {
	buf := make([]byte, 256<<10)
	for off := from; off < to && !c.full(); {
		p := buf[:min(int64(len(buf)), to-off)]
		k, err := f.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			c.differ(path, "read at %d: %v", off, err)
			return
		}
		if w := want.read(off, len(p)); !bytes.Equal(p[:k], w) {
			at := mismatch(p[:k], w)
			c.differ(path, "content differs at %d (block %d): got %x, want %x; read %d of %d bytes", off+int64(at),
				(off+int64(at))/blockSize, head(p[:k], at), head(w, at), k, len(p))
			return
		}
		off += int64(len(p))
	}
	if !c.StrictHoles {
		return
	}
	for num := from / blockSize; num*blockSize < to; num++ {
		if _, ok := want.blocks[num]; !ok {
			c.differ(path, "data at %d to %d, but block %d was never written", from, to, num)
			return
		}
	}
}

func mismatch(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func head(p []byte, at int) []byte { return p[min(at, len(p)):min(at+8, len(p))] }

func allZero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }
