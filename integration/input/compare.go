package input

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// entry is all of a path that a snapshot must have.
type entry struct {
	what string // attributes, extended attributes, target, digest of the content, which other path it is linked to
	data []span // of a file: where SEEK_DATA finds data
}

type span struct{ from, to int64 }

// describe reads a tree whole.
func describe(dir string) (map[string]entry, error) {
	tree, links := map[string]entry{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == ".snapshots" {
			return err
		}
		tree[rel], err = describeOne(path, rel, links)
		return err
	})
	return tree, err
}

func describeOne(path, rel string, links map[uint64]string) (e entry, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return e, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	e.what = fmt.Sprintf("mode %o, owner %d:%d, %d links, mtime %d.%09d, ctime %d.%09d", st.Mode, st.Uid, st.Gid, st.Nlink,
		st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
	xs, err := xattrs(path)
	e.what += fmt.Sprintf(", xattrs %q", xs)
	if first, ok := links[st.Ino]; ok && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		e.what += ", the same as " + first
		return e, err
	}
	links[st.Ino] = rel
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		var sum [32]byte
		var again error
		sum, e.data, again = content(path)
		err = errors.Join(err, again)
		e.what += fmt.Sprintf(", size %d, SHA-256 %x", st.Size, sum)
	case unix.S_IFLNK:
		to, again := os.Readlink(path)
		err = errors.Join(err, again)
		e.what += fmt.Sprintf(", to %q", to)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.what += fmt.Sprintf(", device %x", st.Rdev)
	}
	return e, err
}

func xattrs(path string) (list []string, err error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	val := make([]byte, 64<<10)
	for name := range bytesSplit(buf[:n]) {
		k, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		list = append(list, fmt.Sprintf("%s=%x", name, sha256.Sum256(val[:k])))
	}
	slices.Sort(list)
	return list, nil
}

// bytesSplit yields the names of a list that listxattr gave.
func bytesSplit(p []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(p) > 0 {
			end := slices.Index(p, 0)
			if end < 0 || !yield(string(p[:end])) {
				return
			}
			p = p[end+1:]
		}
	}
}

// content hashes a file's data with the places where it is, leaving out blocks of zeros, which may be holes or not.
func content(path string) (sum [32]byte, data []span, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, nil, err
	}
	defer f.Close()
	h, zero, buf := sha256.New(), make([]byte, 4096), make([]byte, 4096)
	hashed := int64(-1) // the last block that was: two places may share one
	for pos := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return [32]byte(h.Sum(nil)), data, nil
		}
		if err != nil {
			return sum, nil, &os.PathError{Op: "SEEK_DATA", Path: path, Err: err}
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return sum, nil, &os.PathError{Op: "SEEK_HOLE", Path: path, Err: err}
		}
		data = append(data, span{from, to})
		for off := from &^ 4095; off >= 0 && off < to; off += 4096 { // a file may end at the last offset there is
			if off <= hashed {
				continue
			}
			hashed = off
			clear(buf)
			n, err := f.ReadAt(buf[:min(4096, math.MaxInt64-off)], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return sum, nil, err
			}
			if !slices.Equal(buf[:n], zero[:n]) {
				fmt.Fprintf(h, "%d:%d:", off, n)
				h.Write(buf[:n])
			}
		}
		pos = to
	}
}

const maxDifferences = 10

// compare tells how got, a snapshot, differs from want. What is a hole in want must be one in got.
func compare(got, want map[string]entry) error {
	var errs []error
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[p]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%q is missing: %s", p, want[p].what))
		case g.what != want[p].what:
			errs = append(errs, fmt.Errorf("%q is\n    %s, want\n    %s", p, g.what, want[p].what))
		case !covered(g.data, want[p].data):
			errs = append(errs, fmt.Errorf("%q has data at %v, want no more than %v", p, g.data, want[p].data))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			errs = append(errs, fmt.Errorf("%q should not be there", p))
		}
	}
	if len(errs) > maxDifferences {
		errs = append(errs[:maxDifferences], fmt.Errorf("and %d more", len(errs)-maxDifferences))
	}
	return errors.Join(errs...)
}

// covered: every part lies in the whole, whose spans a snapshot knows in blocks of 4 KiB.
func covered(parts, whole []span) bool {
	var blocks []span
	for _, w := range whole {
		w.from &^= 4095
		if w.to <= math.MaxInt64-4095 { // a file may end at the last offset there is
			w.to = (w.to + 4095) &^ 4095
		}
		if n := len(blocks); n > 0 && blocks[n-1].to >= w.from {
			blocks[n-1].to = w.to
			continue
		}
		blocks = append(blocks, w)
	}
	for _, p := range parts {
		if !slices.ContainsFunc(blocks, func(b span) bool { return b.from <= p.from && p.to <= b.to }) {
			return false
		}
	}
	return true
}
