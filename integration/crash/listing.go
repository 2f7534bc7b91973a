package crash

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Listing is all of a tree that snapshots keep, a line a name.
type Listing map[string]string

// List reads a tree whole.
func List(top string) (Listing, error) {
	l, first := Listing{}, map[uint64]string{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err == nil {
			l[rel], err = line(path, rel, first)
		}
		return err
	})
	return l, err
}

// line describes what a path means. first has a path of each inode with several names.
func line(path, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	val := make([]byte, 256)
	n, err := unix.Lgetxattr(path, xattrName, val)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return "", &os.PathError{Op: "getxattr", Path: path, Err: err}
	}
	text := fmt.Sprintf("mode %o, owner %d:%d, mtime %d.%09d, xattr %q", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, val[:max(n, 0)])
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return text, nil
	}
	if _, ok := first[st.Ino]; !ok {
		first[st.Ino] = rel
	}
	sum, err := digest(path)
	return fmt.Sprintf("%s, %d links, as %s, size %d, %s", text, st.Nlink, first[st.Ino], st.Size, sum), err
}

// digest condenses a file's content; holes are zeros.
func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	var at [8]byte
	err = eachDataBlock(f, info.Size(), func(n int64, p []byte) {
		if !zeros(p) {
			binary.LittleEndian.PutUint64(at[:], uint64(n))
			h.Write(at[:])
			h.Write(p)
		}
	})
	return fmt.Sprintf("content %x", h.Sum(nil)[:8]), err
}

// Compare tells what of got isn't as in want.
func (want Listing) Compare(got Listing) error {
	var diffs []error
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		w, wok := want[path]
		g, gok := got[path]
		switch {
		case !gok:
			diffs = append(diffs, fmt.Errorf("%s: missing", path))
		case !wok:
			diffs = append(diffs, fmt.Errorf("%s: should not be there", path))
		case w != g:
			diffs = append(diffs, fmt.Errorf("%s:\n     is %s\n should %s", path, g, w))
		}
	}
	return errors.Join(diffs[:min(len(diffs), maxDifferences)]...)
}
