package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// TestForgedDeepPaths: the paths of directories in one another together are as long as the square of their number; not all of them are made.
func TestForgedDeepPaths(t *testing.T) {
	const depth = 3000
	m := chunksInMemory{}
	name := strings.Repeat("d", 250)
	var inodes []*tree.Inode
	for i := uint64(fakeRoot); i < fakeRoot+depth; i++ {
		inodes = append(inodes, directory(t, m, i, tree.Dirent{Name: name, Ino: i + 1, Type: 4}))
	}
	inodes = append(inodes, directory(t, m, fakeRoot+depth))
	paths, bytes, longest := 0, 0, 0
	err := Diff(t.Context(), forged(t, m, directory(t, m, fakeRoot)), forged(t, m, inodes...), DiffOptions{}, func(c Change) error {
		paths, bytes, longest = paths+1, bytes+len(c.Path), max(longest, len(c.Path))
		return nil
	})
	if err != nil || paths != depth || bytes > longestPaths+depth*(longPath+len(name)+20) || longest > longestPath+2*len(name) {
		t.Errorf("%d paths of %d bytes together, %d at most: %v", paths, bytes, longest, err)
	}
	if longest < 100*len(name) {
		t.Errorf("the longest path has %d bytes: no deep tree is shown any more", longest)
	}
}

// TestForgedSharedNames: directories whose names are the same chunks take no room, and so there can be more names than fit into memory.
func TestForgedSharedNames(t *testing.T) {
	const files, dirs = 2000, 1200
	m := chunksInMemory{}
	var names, root []tree.Dirent
	var inodes []*tree.Inode
	for i := range uint64(files) {
		names = append(names, tree.Dirent{Name: fmt.Sprint(i), Ino: 1000 + i, Type: 8})
		inodes = append(inodes, &tree.Inode{Ino: 1000 + i, Mode: tree.ModeRegular, Nlink: 1})
	}
	content := directory(t, m, 10, names...).Content
	for i := range uint64(dirs) {
		root = append(root, tree.Dirent{Name: fmt.Sprint(i), Ino: 20_000 + i, Type: 4})
		inodes = append(inodes, &tree.Inode{Ino: 20_000 + i, Mode: tree.ModeDir, Nlink: 2, Content: content})
	}
	many := forged(t, m, append(inodes, directory(t, m, fakeRoot, root...))...)
	few := forged(t, m, directory(t, m, fakeRoot))
	if err := Diff(t.Context(), few, many, DiffOptions{}, func(Change) error { return nil }); !errors.Is(err, ErrTooManyNames) {
		t.Errorf("compare: %v", err)
	}
	if _, err := many.view().names(t.Context(), func(uint64) bool { return true }); !errors.Is(err, ErrTooManyNames) {
		t.Errorf("names: %v", err)
	}
}

// TestForgedProblemsAreToldShort: however many paths can't be restored, and however long they are, what is told of them fits on a page.
func TestForgedProblemsAreToldShort(t *testing.T) {
	const dirs = 60
	m := chunksInMemory{}
	var all []tree.Dirent
	for i := range uint64(dirs) {
		all = append(all, tree.Dirent{Name: fmt.Sprintf("%02d%s", i, strings.Repeat("m", 240)), Ino: 10 + i, Type: 4})
	}
	inodes := []*tree.Inode{directory(t, m, fakeRoot, all...)}
	for i := range uint64(dirs) {
		inodes = append(inodes, directory(t, m, 10+i, append(all, tree.Dirent{Name: strings.Repeat("n", 5000), Ino: 999, Type: 8})...))
	}
	_, err := Restore(t.Context(), forged(t, m, inodes...), RestoreOptions{Dest: filepath.Join(t.TempDir(), "dest")})
	var failed *RestoreError
	if !errors.As(err, &failed) || len(failed.Problems) > maxProblems || len(err.Error()) > 8<<10 {
		t.Errorf("%d bytes: %.1000v", len(fmt.Sprint(err)), err)
	}
	long := &RestoreError{Count: 1, Problems: []RestoreProblem{{Path: strings.Repeat("p", 1<<20), Kept: strings.Repeat("k", 1<<20), Err: errors.New(strings.Repeat("e", 1<<20))}}}
	if n := len(long.Error()); n > 2000 {
		t.Errorf("one problem is told in %d bytes", n)
	}
}

// TestForgedTwoNames: verify finds directories with two names, which a restore refuses.
func TestForgedTwoNames(t *testing.T) {
	m := chunksInMemory{}
	for what, inodes := range map[string][]*tree.Inode{
		"the root":       {directory(t, m, fakeRoot, tree.Dirent{Name: "root", Ino: fakeRoot, Type: 4})},
		"itself":         {directory(t, m, fakeRoot, tree.Dirent{Name: "a", Ino: 5, Type: 4}), directory(t, m, 5, tree.Dirent{Name: "b", Ino: 5, Type: 4})},
		"two names":      {directory(t, m, fakeRoot, tree.Dirent{Name: "a", Ino: 5, Type: 4}, tree.Dirent{Name: "b", Ino: 5, Type: 4}), directory(t, m, 5)},
		"none, it is ok": {directory(t, m, fakeRoot, tree.Dirent{Name: "a", Ino: 5, Type: 4}), directory(t, m, 5)},
	} {
		rd := forged(t, m, inodes...)
		problems := 0
		v := &verifier{repo: rd.repo, nodes: rd.repo.nodes, seen: newMarks(), opts: VerifyOptions{Report: func(Problem) { problems++ }}}
		w := &verifyWalk{verifier: v, root: rd.root, dirs: map[uint64]bool{fakeRoot: true}}
		if err := w.walk(t.Context(), rd.root.Inodes, w.inode); err != nil || (problems > 0) == strings.Contains(what, "ok") {
			t.Errorf("%s: %d problems, %v", what, problems, err)
		}
	}
}

// TestXattrsThatDoNotFit: ext4 has room for a few kilobytes of an inode's extended attributes, and says that there is no space; that is no
// full disk.
func TestXattrsThatDoNotFit(t *testing.T) {
	m := chunksInMemory{}
	file := &tree.Inode{Ino: 5, Mode: tree.ModeRegular | 0o644, Nlink: 1}
	for i := range 10 {
		file.Xattrs = append(file.Xattrs, tree.Xattr{Name: fmt.Sprintf("user.%d", i), Value: make([]byte, 60_000)})
	}
	rd := forged(t, m, directory(t, m, fakeRoot, tree.Dirent{Name: "file", Ino: 5, Type: 8}), file)
	dest := filepath.Join(t.TempDir(), "dest")
	warned := 0
	_, err := Restore(t.Context(), rd, RestoreOptions{Dest: dest, Warn: func(error) { warned++ }})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Listxattr(filepath.Join(dest, "file"), make([]byte, 1000)); err != nil || n < 70 && warned == 0 {
		t.Errorf("%d bytes of names, %d warnings, %v", n, warned, err)
	}
}

func TestOpenLongRefusesLongNames(t *testing.T) {
	for _, path := range []string{"/" + strings.Repeat("n", 5000) + "/x", t.TempDir() + "/" + strings.Repeat("n", 5000) + "/x"} {
		if fd, err := openLong(path); err == nil {
			unix.Close(fd)
			t.Errorf("%.50s is opened", path)
		}
	}
}
