package snapshot

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// TestRestoreDeep restores a chain of directories whose path is far longer than a path may be.
func TestRestoreDeep(t *testing.T) {
	const depth = 400 // 80 KB
	name := strings.Repeat("d", 200)
	m := chunksInMemory{}
	inodes := []*tree.Inode{directory(t, m, fakeRoot, tree.Dirent{Name: name, Ino: 1000, Type: 4})}
	for i := range uint64(depth) {
		inodes = append(inodes, directory(t, m, 1000+i, tree.Dirent{Name: name, Ino: 1001 + i, Type: 4}))
	}
	inodes = append(inodes, directory(t, m, 1000+depth, tree.Dirent{Name: "pipe", Ino: 1, Type: 1}), &tree.Inode{Ino: 1, Mode: tree.ModeFIFO | 0o600, Nlink: 1})
	dest := filepath.Join(t.TempDir(), "dest")
	if _, err := Restore(t.Context(), forged(t, m, inodes...), RestoreOptions{Dest: dest}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dest, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for range depth + 1 {
		if err != nil {
			t.Fatal(err)
		}
		up := fd
		fd, err = unix.Openat(up, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		unix.Close(up)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "pipe", &st, 0); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	t.Run("from a directory", func(t *testing.T) {
		again := filepath.Join(t.TempDir(), "again")
		res := mustRestore(t, dest, RestoreOptions{Dest: again})
		if res = mustRestore(t, dest, RestoreOptions{Dest: again, Delete: true}); res.Removed != 0 {
			t.Errorf("the second time: %+v", res)
		}
	})
}
