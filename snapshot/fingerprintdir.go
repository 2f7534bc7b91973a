package snapshot

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"graphvol/snapshot/tree"
)

// smallFile is the number of blocks up to which a file has no fingerprints, 4 MiB of data. Comparing a segment with what is stored
// takes 0.2 ms, of which such a file has 32 at most. Its fingerprints would take an inode, a whole block of the disk, and 0.2 ms
// to make.
const smallFile = 1 << 10

// printSuffix ends the names of files with fingerprints. Another format would have another one.
const printSuffix = ".crc32c"

// printDir is the directory of fingerprints. The package documentation has the format, and says why nothing depends on it.
type printDir struct {
	path      string
	log       *slog.Logger
	smallFile uint64

	// sealing is held by a seal as long as it may use the files.
	sealing sync.Mutex
}

func (d *printDir) name(ino uint64) string {
	return filepath.Join(d.path, strconv.FormatUint(ino, 10)+printSuffix)
}

// inode is the reverse of name.
func (d *printDir) inode(name string) (ino uint64, ok bool) {
	ino, err := strconv.ParseUint(strings.TrimSuffix(name, printSuffix), 10, 64)
	return ino, err == nil && filepath.Base(d.name(ino)) == name
}

// has tells whether a file has fingerprints, if nothing went wrong.
func (d *printDir) has(in *tree.Inode) bool {
	return in.IsRegular() && blocksOf(in.Size) > d.smallFile
}

// begin makes the directory ready for a seal, for which all that is there counts, or (full) nothing.
func (d *printDir) begin(full bool) *sealPrints {
	s := &sealPrints{dir: d}
	var err error
	if full {
		err = os.RemoveAll(d.path)
	}
	if err == nil {
		err = os.Mkdir(d.path, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		s.tell(err)
	}
	return s
}

// sealPrints are the fingerprints in the hands of a running seal.
type sealPrints struct {
	dir  *printDir
	told sync.Once
}

// tell logs the first error.
func (s *sealPrints) tell(err error) {
	s.told.Do(func() {
		s.dir.log.Warn("fingerprints can't be kept; the snapshot is taken, and the next one compares more with the store", "error", err)
	})
}

// fail drops the fingerprints of a file after an error.
func (s *sealPrints) fail(ino uint64, err error) {
	s.tell(err)
	s.drop(ino)
}

// drop removes an inode's file. If that fails, what is in it is of another inode or of older content, which is harmless.
func (s *sealPrints) drop(ino uint64) {
	if err := os.Remove(s.dir.name(ino)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.tell(err)
	}
}

// replace drops the fingerprints of an inode that has become one without; now is nil if it is gone.
func (s *sealPrints) replace(old, now *tree.Inode) {
	if s.dir.has(old) && (now == nil || !s.dir.has(now)) {
		s.drop(old.Ino)
	}
}
