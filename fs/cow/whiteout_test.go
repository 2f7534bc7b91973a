package cow

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
)

// whiteoutWorld has a file "f", which a snapshot has, where a rename can leave a whiteout.
func whiteoutWorld(t *testing.T) (w *world, f uint64) {
	w = newWorld(t)
	from, to := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	w.must(os.WriteFile(from, nil, 0o600))
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_WHITEOUT); err != nil {
		t.Skipf("leaving a whiteout here: %v", err)
	}
	f = w.create("f", fill(1, blockSize))
	w.snapshot()
	return w, f
}

// checkWhiteout wants the whiteout at "f", and the file at "g", in the next snapshot, and the whiteout's place in the dirty
// map: on a number that was in use before, sealing has nothing else to find it by.
func (w *world) checkWhiteout(f uint64) {
	w.t.Helper()
	root := w.v.Root()
	a, err := w.v.tree.StatName(root, "f")
	w.must(err)
	if p, name := w.v.run.Load().ep.Find(a.Ino).Hint(); p != root || name != "f" {
		w.t.Errorf("the whiteout is said to be at inode %d, %q", p, name)
	}
	im := w.snapshot()
	names := im.inodes[root].names
	if names["f"] != a.Ino || names["g"] != f {
		w.t.Fatalf("names in the snapshot: %v", names)
	}
	if n := im.inodes[a.Ino]; n == nil || n.t.Mode&syscall.S_IFMT != unix.S_IFCHR {
		w.t.Errorf("the whiteout in the snapshot: %+v", n)
	}
	if im.inodes[f] == nil {
		w.t.Error("the renamed file is missing in the snapshot")
	}
}

func TestWhiteoutIsInTheSnapshot(t *testing.T) {
	w, f := whiteoutWorld(t)
	_, err := w.v.Rename(Caller{}, w.v.Root(), "f", w.v.Root(), "g", backing.RenameWhiteout)
	w.must(err)
	w.checkWhiteout(f)
}

// The server dies after the backing has renamed: the next one gets the request again, and knows nothing of the whiteout.
func TestWhiteoutSentAgain(t *testing.T) {
	w, f := whiteoutWorld(t)
	w.v.journal.left = map[uint64]entry{12: {Request: 12, Op: opWhiteout, A: f}}
	root := w.v.Root()
	_, err := w.v.tree.Rename(backing.Caller{}, root, "f", root, "g", backing.RenameWhiteout)
	w.must(err)
	_, err = w.v.Rename(Caller{Resent: true, Request: 12}, root, "f", root, "g", backing.RenameWhiteout)
	w.must(err)
	w.checkWhiteout(f)
}
