package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// plant makes a tree with files of all kinds.
func plant(t *testing.T, dir string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(in("a/b/c"), 0o755), os.Mkdir(in("empty"), 0o751), os.Mkdir(in("closed"), 0o500))
	for i, n := range []int{0, 1, 4095, 4096, 4097, 100_000, 3 << 20} {
		p := make([]byte, n)
		for j := range p {
			p[j] = byte(r.Uint32())
		}
		must(os.WriteFile(in(fmt.Sprintf("a/f%d", i)), p, fs.FileMode(0o600+i)))
	}
	sparse, err := os.Create(in("a/b/sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("data"), 40<<20)
	must(err, sparse.Truncate(50<<20+7), sparse.Close())
	must(os.Link(in("a/f5"), in("a/b/c/hard")), os.Link(in("a/f5"), in("hard2")))
	must(os.Symlink("../f1", in("a/b/link")), os.Symlink("/nowhere/\xff", in("dangling\xff")))
	must(unix.Mkfifo(in("fifo"), 0o620))
	must(unix.Setxattr(in("a/f3"), "user.k", []byte("v\x00w"), 0), unix.Setxattr(in("a"), "user.dir", nil, 0))
	if os.Geteuid() == 0 {
		must(os.Chown(in("a/f4"), 12, 34), os.Lchown(in("a/b/link"), 56, 78), os.Chmod(in("a/f2"), 0o755|fs.ModeSetuid),
			unix.Mknod(in("null"), unix.S_IFCHR|0o644, 0x103))
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	must(os.Chtimes(in("a/f1"), old, old), os.Chtimes(in("a/b"), old, old), os.Chtimes(dir, old, old))
}

// describe tells everything about a tree that a restore must bring back.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	links := make(map[uint64]string)
	var out []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%q mode %o owner %d:%d mtime %d.%d rdev %x nlink %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev, st.Nlink)
		xs, err := xattrsOf(p)
		if err != nil {
			return err
		}
		for _, x := range xs {
			line += fmt.Sprintf(" %s=%q", x.Name, x.Value)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d sum %x", st.Size, sha256.Sum256(b))
			if st.Size >= 1<<20 {
				line += fmt.Sprintf(" blocks<=%d", (st.Blocks+255)/256*256)
			}
			if first, ok := links[st.Ino]; ok {
				line += " same as " + first
			}
			links[st.Ino] = rel
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" to %q", to)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

func sameAs(t *testing.T, got, want string) {
	t.Helper()
	g, w := describe(t, got), describe(t, want)
	if slices.Equal(g, w) {
		return
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			t.Errorf("got  %s", l)
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			t.Errorf("want %s", l)
		}
	}
}

func restoreDir(t *testing.T, src string, opts RestoreOptions) (RestoreResult, error) {
	t.Helper()
	from, err := DirTree(src)
	if err != nil {
		t.Fatal(err)
	}
	opts.Warn = func(err error) { t.Log("warning:", err) }
	return Restore(t.Context(), from, opts)
}

func mustRestore(t *testing.T, src string, opts RestoreOptions) RestoreResult {
	t.Helper()
	res, err := restoreDir(t, src, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRestoreBringsAllBack(t *testing.T) {
	src, dest := t.TempDir(), filepath.Join(t.TempDir(), "new", "place")
	plant(t, src, 1)
	res := mustRestore(t, src, RestoreOptions{Dest: dest})
	sameAs(t, dest, src)
	if res.Files != 8 || res.Written < 3<<20 || res.Written > 4<<20 {
		t.Errorf("%+v", res)
	}
	if res = mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true}); res.Written != 0 || res.Removed != 0 {
		t.Errorf("again: %+v", res)
	}
	sameAs(t, dest, src)
}

func TestRestoreWritesOnlyWhatDiffers(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 2)
	mustRestore(t, src, RestoreOptions{Dest: dest})
	in := func(name string) string { return filepath.Join(dest, name) }
	f, err := os.OpenFile(in("a/f6"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt([]byte("changed"), 1<<20-3) // two blocks
	_, err2 := f.WriteAt([]byte("longer"), 3<<20)
	g, err3 := os.OpenFile(in("a/b/sparse"), os.O_RDWR, 0)
	_, err4 := g.WriteAt([]byte("in a hole"), 1<<20)
	err = errors.Join(err1, err2, err3, err4, f.Close(), g.Close(),
		os.Truncate(in("a/f5"), 10), // shorter, and so its links
		os.Remove(in("hard2")), os.WriteFile(in("hard2"), []byte("no link any more"), 0o600),
		os.Chmod(in("empty"), 0o777), unix.Setxattr(in("a/f3"), "user.extra", []byte("x"), 0),
		os.Remove(in("a/b/link")), os.WriteFile(in("a/b/link"), nil, 0o600),
		os.WriteFile(in("extra"), nil, 0o600), os.MkdirAll(in("closed/more/deeper"), 0o755), os.WriteFile(in("closed/more/deeper/x"), nil, 0o400))
	if err != nil {
		t.Fatal(err)
	}
	dry := mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true, DryRun: true})
	before := describe(t, dest)
	res := mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true})
	sameAs(t, dest, src)
	if want := int64(2*4096 + 100_000 - 10 + 4096); res.Written < want-20_000 || res.Written > want+20_000 || res.Removed != 4 {
		t.Errorf("%+v, about %d expected", res, want)
	}
	if dry.Written != res.Written || dry.Removed != res.Removed {
		t.Errorf("a dry run said %+v, it was %+v", dry, res)
	}
	if slices.Equal(before, describe(t, dest)) {
		t.Error("nothing was to be done: the test is worthless")
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 3)
	if err := os.WriteFile(filepath.Join(dest, "a"), []byte("a file where a directory belongs"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := describe(t, dest)
	res := mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true, DryRun: true})
	if !slices.Equal(before, describe(t, dest)) || res.Written < 3<<20 {
		t.Errorf("%+v; now %v", res, describe(t, dest))
	}
	missing := filepath.Join(t.TempDir(), "x")
	mustRestore(t, src, RestoreOptions{Dest: missing, DryRun: true})
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a dry run made the destination")
	}
}

func TestRestoreOfPaths(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 4)
	mustRestore(t, src, RestoreOptions{Dest: dest, Paths: []string{"a/b", "a/f1"}})
	if got, want := sha256.Sum256(readFile(t, filepath.Join(dest, "a/b/c/hard"))), sha256.Sum256(readFile(t, filepath.Join(src, "a/f5"))); got != want {
		t.Error("the content differs")
	}
	var names []string
	filepath.WalkDir(dest, func(p string, _ fs.DirEntry, _ error) error {
		rel, _ := filepath.Rel(dest, p)
		names = append(names, rel)
		return nil
	})
	if got := strings.Join(names, " "); got != ". a a/b a/b/c a/b/c/hard a/b/link a/b/sparse a/f1" {
		t.Errorf("restored %s", got)
	}
	for _, p := range []string{"a/none", "none/a", "a/f1/x"} {
		if _, err := restoreDir(t, src, RestoreOptions{Dest: dest, Paths: []string{p}}); !errors.Is(err, ErrNoPath) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// A symbolic link in the destination must not lead the restore out of it.
func TestRestoreStaysInside(t *testing.T) {
	src, dest, outside := t.TempDir(), t.TempDir(), t.TempDir()
	plant(t, src, 5)
	victim := filepath.Join(outside, "victim")
	err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(outside, filepath.Join(dest, "a")),
		os.Symlink(victim, filepath.Join(dest, "hard2")), os.Symlink(victim, filepath.Join(dest, "fifo")))
	if err != nil {
		t.Fatal(err)
	}
	before := describe(t, outside)
	mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true})
	sameAs(t, dest, src)
	if !slices.Equal(before, describe(t, outside)) {
		t.Error("something outside was changed")
	}
}

func TestRestoreKeepsItsHandsOff(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 6)
	guarded := filepath.Join(dest, "deep", "guarded")
	if err := errors.Join(os.MkdirAll(guarded, 0o755), os.WriteFile(filepath.Join(guarded, "x"), nil, 0o600), os.WriteFile(filepath.Join(dest, "deep/y"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true, Protect: []string{guarded}})
	if _, err := os.Stat(filepath.Join(guarded, "x")); err != nil {
		t.Error("removed what was protected")
	}
	if _, err := os.Stat(filepath.Join(dest, "deep/y")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("kept what was beside it")
	}
	if _, err := restoreDir(t, src, RestoreOptions{Dest: dest, Protect: []string{filepath.Join(dest, "a/b")}}); !errors.Is(err, ErrProtected) {
		t.Errorf("into a protected directory: %v", err)
	}
	if _, err := restoreDir(t, src, RestoreOptions{Dest: dest, Protect: []string{dest}}); !errors.Is(err, ErrProtected) {
		t.Errorf("to a protected directory: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dest, "a/f1")), os.MkdirAll(filepath.Join(dest, "a/f1/x"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreDir(t, src, RestoreOptions{Dest: dest}); !errors.Is(err, ErrInTheWay) {
		t.Errorf("a directory in the way: %v", err)
	}
	mustRestore(t, src, RestoreOptions{Dest: dest, Delete: true})
	sameAs(t, dest, src)
}

func TestRestoreCanBeInterrupted(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 7)
	from, err := DirTree(src)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Restore(ctx, from, RestoreOptions{Dest: dest, Progress: func(RestoreProgress) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	mustRestore(t, src, RestoreOptions{Dest: dest})
	sameAs(t, dest, src)
}

// brokenTree fails to read one file.
type brokenTree struct {
	Tree
	err error
}

func (b brokenTree) Open(ctx context.Context, ino uint64) (TreeFile, error) {
	f, err := b.Tree.Open(ctx, ino)
	return brokenFile{f, b.err}, err
}

type brokenFile struct {
	TreeFile
	err error
}

func (b brokenFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= 1<<20 {
		return 0, b.err
	}
	return b.TreeFile.ReadAt(ctx, p, off)
}

func TestRestoreTellsWhatCouldNotBeRead(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	plant(t, src, 8)
	from, err := DirTree(src)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("damaged")
	if _, err := Restore(t.Context(), brokenTree{from, broken}, RestoreOptions{Dest: dest}); !errors.Is(err, broken) || !strings.Contains(err.Error(), "a/") {
		t.Errorf("got %v", err)
	}
}

func TestRestoreOfALargeFile(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	p := make([]byte, 3*pieceSize+12345)
	c := rand.NewChaCha8([32]byte{1})
	c.Read(p)
	if err := os.WriteFile(filepath.Join(src, "f"), p, 0o600); err != nil {
		t.Fatal(err)
	}
	var last RestoreProgress
	if res := mustRestore(t, src, RestoreOptions{Dest: dest}); res.Written != int64(len(p)) {
		t.Errorf("%+v, %+v", res, last)
	}
	got, err := os.ReadFile(filepath.Join(dest, "f"))
	if err != nil || !bytes.Equal(got, p) {
		t.Errorf("differs, %v", err)
	}
}

func xattrsOf(path string) (out []tree.Xattr, err error) {
	err = eachPathXattr(path, func(x tree.Xattr) error {
		out = append(out, x)
		return nil
	})
	return out, err
}
