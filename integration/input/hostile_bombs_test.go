package input

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// strangeLinks: targets that no symbolic link can have, and some that lead out.
func strangeLinks(s *forged, outside string) {
	targets := []string{outside, "../outside", "/proc/self/fd/1", "/", "", "nul\x00nul", strings.Repeat("t", 4095), strings.Repeat("t", 4096), strings.Repeat("t", 200_000), filepath.Join(outside, "a", "b")}
	var root []tree.Dirent
	for i, target := range targets {
		root = append(root, tree.Dirent{Name: fmt.Sprintf("l%d", i), Ino: uint64(10 + i), Type: isLink})
		s.inode(&tree.Inode{Ino: uint64(10 + i), Mode: tree.ModeSymlink | 0o777, Nlink: 1, Size: int64(len(target)), Target: target})
	}
	// The same link by several names.
	s.inode(&tree.Inode{Ino: 5, Mode: tree.ModeSymlink | 0o777, Nlink: 2, Size: int64(len(outside)), Target: outside})
	s.dir(6, tree.Dirent{Name: "two", Ino: 5, Type: isLink})
	s.dir(forgedRoot, append(root, tree.Dirent{Name: "one", Ino: 5, Type: isLink}, tree.Dirent{Name: "dir", Ino: 6, Type: isDir})...)
}

// specialFiles: devices, and bits that give rights. All of that is legal.
func specialFiles(s *forged, _ string) {
	var root []tree.Dirent
	for i, in := range []tree.Inode{
		{Mode: tree.ModeChar | 0o666, Rdev: unix.Mkdev(1, 3)}, {Mode: tree.ModeBlock | 0o666, Rdev: unix.Mkdev(7, 200)}, {Mode: tree.ModeChar | 0o7777, Rdev: unix.Mkdev(4095, 1<<20-1)},
		{Mode: tree.ModeFIFO | 0o7777}, {Mode: tree.ModeSocket | 0o777}, {Mode: tree.ModeRegular | 0o6755}, {Mode: tree.ModeRegular | 0o1000},
	} {
		in.Ino, in.Nlink, in.UID = uint64(10+i), 1, 12345
		root = append(root, tree.Dirent{Name: fmt.Sprintf("s%d", i), Ino: in.Ino, Type: tree.TypeOf(in.Mode)})
		s.inode(&in)
	}
	s.dir(forgedRoot, root...)
}

// strangeXattrs: names and values that no filesystem takes.
func strangeXattrs(s *forged, _ string) {
	var root []tree.Dirent
	for i, x := range [][]tree.Xattr{
		{{Name: "", Value: []byte("x")}}, {{Name: "user.\x00x", Value: []byte("x")}}, {{Name: "nonsense", Value: []byte("x")}}, {{Name: "user." + strings.Repeat("n", 300), Value: []byte("x")}},
		{{Name: "user.long", Value: make([]byte, 1<<20)}}, {{Name: "system.posix_acl_access", Value: []byte("nonsense")}}, {{Name: "security.capability", Value: []byte("nonsense")}},
		{{Name: "trusted.overlay.opaque", Value: []byte("y")}},
	} {
		in := tree.Inode{Ino: uint64(10 + i), Mode: tree.ModeRegular | 0o755, Nlink: 1, Xattrs: x}
		root = append(root, tree.Dirent{Name: fmt.Sprintf("x%d", i), Ino: in.Ino, Type: isFile})
		s.inode(&in)
	}
	s.dir(forgedRoot, root...)
}

// xattrBombs: files with hundreds of megabytes of extended attributes each, which take hardly any room in the store.
func xattrBombs(s *forged, _ string) {
	const bombs, attributes = 5, 5000
	zeros := make([]byte, 64<<10)
	in := tree.Inode{Mode: tree.ModeRegular | 0o644, Nlink: 1}
	for i := range attributes {
		in.Xattrs = append(in.Xattrs, tree.Xattr{Name: fmt.Sprintf("user.%04d", i), Value: zeros})
	}
	in.Ino = 10
	rec, err := tree.EncodeInode(s, &in)
	must(s.t, err)
	var root []tree.Dirent
	for i := range bombs {
		ino := uint64(10 + i)
		root = append(root, tree.Dirent{Name: fmt.Sprintf("x%d", i), Ino: ino, Type: isFile})
		s.record(ino, rec)
	}
	s.sums.Files = bombs
	s.dir(forgedRoot, root...)
}

// deepChain: the paths of all its directories together are gigabytes.
func deepChain(s *forged, _ string) {
	const depth = 4000
	name := strings.Repeat("d", 250)
	for i := range depth {
		s.dir(uint64(forgedRoot+i), tree.Dirent{Name: name, Ino: uint64(forgedRoot + i + 1), Type: isDir})
	}
	s.dir(forgedRoot + depth)
}

// maze: directories that all hold one another, with long names, and files that can't be read, whose path is wanted.
func maze(s *forged, _ string) {
	const dirs = 300
	var all []tree.Dirent
	for i := range dirs {
		all = append(all, tree.Dirent{Name: fmt.Sprintf("%03d%s", i, strings.Repeat("m", 240)), Ino: uint64(10 + i), Type: isDir})
	}
	content := s.names(all...)
	for i := range dirs {
		s.inode(&tree.Inode{Ino: uint64(10 + i), Mode: tree.ModeDir | 0o755, Nlink: 2, Content: content})
	}
	short := tree.Segment{Extents: []tree.Extent{{Blocks: 32, Chunk: s.data([]byte("short"))}}}
	s.file(5, 4096, s.segments(short, 0))
	s.dir(forgedRoot, append(all, tree.Dirent{Name: "broken", Ino: 5, Type: isFile}, tree.Dirent{Name: "no", Ino: 6, Type: isFile})...)
}

// sharedNames: thousands of directories with the same thousands of names.
func sharedNames(s *forged, _ string) {
	const dirs, files = 2000, 20_000
	var root, names []tree.Dirent
	for i := range files {
		ino := uint64(100_000 + i)
		names = append(names, tree.Dirent{Name: fmt.Sprintf("f%d", i), Ino: ino, Type: isFile})
		s.file(ino, 10, tree.Ref{})
	}
	content := s.names(names...)
	for i := range dirs {
		ino := uint64(10 + i)
		root = append(root, tree.Dirent{Name: fmt.Sprintf("d%d", i), Ino: ino, Type: isDir})
		s.inode(&tree.Inode{Ino: ino, Mode: tree.ModeDir | 0o755, Nlink: 2, Content: content})
	}
	s.dir(forgedRoot, root...)
}
