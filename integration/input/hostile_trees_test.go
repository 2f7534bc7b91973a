package input

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// Types of names.
const (
	isDir  = unix.DT_DIR
	isFile = unix.DT_REG
	isLink = unix.DT_LNK
	isFIFO = unix.DT_FIFO
)

// hostileTree is a snapshot that no volume could give.
type hostileTree struct {
	name string
	make func(s *forged, outside string)
	// broken: verify tells of it, and a restore of it fails.
	broken bool
	// legal: it is a good snapshot, but the destination's filesystem need not be able to hold it.
	legal bool
	// endless: it has more than the kernel shows in a minute, so it is walked a part of the way, and not restored into the mount.
	endless bool
	// vast: the same, and it isn't restored at all.
	vast bool
}

func hostileTrees() []hostileTree {
	return []hostileTree{
		{name: "circles", make: circles, broken: true},
		{name: "names", make: badNames, broken: true},
		{name: "twice", make: twice, broken: true},
		{name: "types", make: lyingTypes, broken: true},
		{name: "numbers", make: strangeNumbers, broken: true},
		{name: "modes", make: strangeModes, broken: true},
		{name: "sizes", make: hugeSizes, legal: true},
		{name: "segments", make: farSegments, broken: true},
		{name: "counts", make: hugeCounts, broken: true},
		{name: "table", make: hugeTable, broken: true},
		{name: "noroot", make: func(s *forged, _ string) { s.root = 77; s.dir(forgedRoot) }, broken: true},
		{name: "fileroot", make: func(s *forged, _ string) { s.file(forgedRoot, 5, tree.Ref{}) }, broken: true},
		{name: "links", make: strangeLinks, broken: true},
		{name: "special", make: specialFiles},
		{name: "xattrs", make: strangeXattrs, broken: true},
		{name: "bombs", make: xattrBombs, endless: true},
		{name: "deep", make: deepChain, endless: true},
		{name: "maze", make: maze, broken: true, endless: true},
		{name: "shared", make: sharedNames, endless: true, vast: true},
	}
}

// circles: directories that hold themselves, one another, and the root.
func circles(s *forged, _ string) {
	s.dir(forgedRoot, tree.Dirent{Name: "dir", Ino: 5, Type: isDir}, tree.Dirent{Name: "again", Ino: 5, Type: isDir}, tree.Dirent{Name: "root", Ino: forgedRoot, Type: isDir})
	s.dir(5, tree.Dirent{Name: "self", Ino: 5, Type: isDir}, tree.Dirent{Name: "other", Ino: 6, Type: isDir}, tree.Dirent{Name: "root", Ino: forgedRoot, Type: isDir})
	s.dir(6, tree.Dirent{Name: "up", Ino: 5, Type: isDir}, tree.Dirent{Name: "file", Ino: 7, Type: isFile})
	s.file(7, 10, tree.Ref{})
}

// badNames: each in a directory of its own, beside a good one.
func badNames(s *forged, outside string) {
	var root []tree.Dirent
	long := strings.Repeat("l", 4095) // longer than any filesystem's, and what the kernel takes
	root = append(root, tree.Dirent{Name: "long", Ino: 30, Type: isDir})
	s.dir(30, tree.Dirent{Name: long, Ino: 31, Type: isDir})
	s.dir(31, tree.Dirent{Name: long, Ino: 32, Type: isDir})
	s.dir(32, tree.Dirent{Name: "ok", Ino: 7, Type: isFile})
	for i, name := range []string{".", "..", "a/b", "../evil", outside + "/evil", "", "nul\x00nul", strings.Repeat("n", 256), strings.Repeat("n", 4096), strings.Repeat("n", 200_000)} {
		ino := uint64(10 + i)
		root = append(root, tree.Dirent{Name: fmt.Sprintf("d%d", i), Ino: ino, Type: isDir})
		s.dir(ino, tree.Dirent{Name: name, Ino: 8, Type: isFile}, tree.Dirent{Name: "ok", Ino: 7, Type: isFile})
	}
	s.dir(forgedRoot, root...)
	s.file(7, 10, tree.Ref{})
	s.file(8, 10, tree.Ref{})
}

// twice: a name that is a symbolic link out of the destination, and a directory.
func twice(s *forged, outside string) {
	var leaf []byte
	e := tree.DirEntry(tree.Dirent{Name: "x", Ino: 5, Type: isLink})
	leaf = append(leaf, 1, 2, 2) // version, names, two of them
	for i, ino := range []uint64{5, 6} {
		e2 := tree.DirEntry(tree.Dirent{Name: "x", Ino: ino, Type: []uint8{isLink, isDir}[i]})
		leaf = binary.AppendUvarint(leaf, map[int]uint64{0: e.Key}[i])
		leaf = append(append(leaf, 1), "x"...)
		leaf = append(append(leaf, byte(len(e2.Value))), e2.Value...)
	}
	s.inode(&tree.Inode{Ino: forgedRoot, Mode: tree.ModeDir | 0o755, Nlink: 2, Content: tree.Ref{Count: 2, Inline: leaf}})
	s.inode(&tree.Inode{Ino: 5, Mode: tree.ModeSymlink | 0o777, Nlink: 1, Target: outside})
	s.dir(6, tree.Dirent{Name: "evil", Ino: 7, Type: isFile})
	s.file(7, 10, tree.Ref{})
}

// lyingTypes: names that say another type than the inode has, or lead to none.
func lyingTypes(s *forged, outside string) {
	s.dir(forgedRoot, tree.Dirent{Name: "dir", Ino: 7, Type: isDir}, tree.Dirent{Name: "file", Ino: 5, Type: isFile}, tree.Dirent{Name: "link", Ino: 5, Type: isLink},
		tree.Dirent{Name: "fifo", Ino: 6, Type: isFIFO}, tree.Dirent{Name: "none", Ino: 7, Type: 0}, tree.Dirent{Name: "other", Ino: 7, Type: 255},
		tree.Dirent{Name: "gone", Ino: 99, Type: isFile}, tree.Dirent{Name: "gonedir", Ino: 98, Type: isDir})
	s.dir(5, tree.Dirent{Name: "evil", Ino: 7, Type: isFile})
	s.inode(&tree.Inode{Ino: 6, Mode: tree.ModeSymlink | 0o777, Nlink: 1, Target: outside, Content: s.names(tree.Dirent{Name: "evil", Ino: 7, Type: isFile})})
	s.file(7, 10, s.names(tree.Dirent{Name: "evil", Ino: 6, Type: isLink})) // names in the place of segments
}

// strangeNumbers: inodes that can't be.
func strangeNumbers(s *forged, _ string) {
	var root []tree.Dirent
	for i, ino := range []uint64{0, 1, 3, 1<<48 - 1, 1 << 48, 1 << 63, math.MaxUint64} {
		root = append(root, tree.Dirent{Name: fmt.Sprintf("n%d", i), Ino: ino, Type: isFile})
		s.file(ino, 10, tree.Ref{})
	}
	s.dir(forgedRoot, append(root, tree.Dirent{Name: "gone", Ino: 1 << 47, Type: isFile})...)
}

// strangeModes: types that there aren't, bits above them, owners and times at the ends of their range.
func strangeModes(s *forged, _ string) {
	var root []tree.Dirent
	for i, mode := range []uint32{0, 0o644, 0o170000, 0o150000 | 0o7777, 0o030000, 0o110000, 1<<31 | tree.ModeRegular, 0x7fff0000 | tree.ModeRegular | 0o7777, tree.ModeRegular | 0o7777} {
		ino := uint64(10 + i)
		root = append(root, tree.Dirent{Name: fmt.Sprintf("m%d", i), Ino: ino, Type: tree.TypeOf(mode)})
		s.inode(&tree.Inode{
			Ino: ino, Mode: mode, UID: math.MaxUint32, GID: math.MaxUint32 - 1, Nlink: []uint32{0, 1, math.MaxUint32}[i%3], Size: 10,
			Mtime: tree.Time{Sec: math.MinInt64, Nsec: 999_999_999}, Ctime: tree.Time{Sec: math.MaxInt64}, Btime: tree.Time{Sec: math.MaxInt64},
		})
	}
	s.dir(forgedRoot, root...)
}

// hugeSizes: files without content that are as long as can be. All of that is legal.
func hugeSizes(s *forged, _ string) {
	s.dir(forgedRoot, tree.Dirent{Name: "max", Ino: 5, Type: isFile}, tree.Dirent{Name: "blocks", Ino: 6, Type: isFile})
	s.file(5, math.MaxInt64, tree.Ref{})
	s.inode(&tree.Inode{Ino: 6, Mode: tree.ModeRegular | 0o644, Nlink: 1, Size: 5 << 40, Blocks: 3})
}

// farSegments: content behind the end, at the last places there are, and in a chunk that is too short.
func farSegments(s *forged, _ string) {
	short := tree.Segment{Extents: []tree.Extent{{Blocks: 32, Chunk: s.data([]byte("short"))}}}
	whole := tree.Segment{Extents: []tree.Extent{{Blocks: 32, Chunk: s.data(make([]byte, tree.SegmentSize))}}}
	far := []uint64{0, 1 << 40, 1<<46 - 1, 1<<47 - 1, 1<<63 - 1, math.MaxUint64}
	var root []tree.Dirent
	for i, size := range []int64{0, 1, 4097, 200_000, math.MaxInt64} {
		root = append(root, tree.Dirent{Name: fmt.Sprintf("short%d", i), Ino: uint64(10 + i), Type: isFile}, tree.Dirent{Name: fmt.Sprintf("whole%d", i), Ino: uint64(20 + i), Type: isFile})
		s.file(uint64(10+i), size, s.segments(short, far...))
		s.file(uint64(20+i), size, s.segments(whole, far...))
	}
	s.dir(forgedRoot, root...)
}

// hugeCounts: maps that say of themselves that they are longer than anything.
func hugeCounts(s *forged, _ string) {
	s.dir(forgedRoot, tree.Dirent{Name: "dir", Ino: 5, Type: isDir}, tree.Dirent{Name: "file", Ino: 6, Type: isFile}, tree.Dirent{Name: "ok", Ino: 7, Type: isFile})
	names := s.names(tree.Dirent{Name: "one", Ino: 7, Type: isFile})
	names.Count = 1 << 62
	s.inode(&tree.Inode{Ino: 5, Mode: tree.ModeDir | 0o755, Nlink: 2, Size: math.MaxInt64, Content: names})
	content := s.segments(tree.Segment{Extents: []tree.Extent{{Blocks: 1, Chunk: s.data(make([]byte, 4096))}}}, 0)
	content.Count = math.MaxUint64
	s.inode(&tree.Inode{Ino: 6, Mode: tree.ModeRegular | 0o644, Nlink: 1, Size: 4096, Blocks: math.MaxUint64, Content: content})
	s.file(7, 10, tree.Ref{})
}

// hugeTable: the same of the inode table and of the snapshot itself.
func hugeTable(s *forged, _ string) {
	s.dir(forgedRoot)
	s.inflate = 1 << 62
	s.sums = tree.Root{Files: math.MaxInt64, Bytes: math.MaxInt64}
}
