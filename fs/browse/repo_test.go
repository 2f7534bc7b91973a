package browse

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/index"
	"graphvol/snapshot"
)

// repoCatalogue is what package agent makes of a Repo.
type repoCatalogue struct{ *snapshot.Repo }

var (
	_ Catalogue = repoCatalogue{}
	_ Reader    = (*snapshot.Reader)(nil)
)

func (c repoCatalogue) Reader(ctx context.Context, s index.Snapshot) (Reader, error) {
	rd, err := c.Repo.Reader(ctx, s)
	if err != nil {
		return nil, err
	}
	return rd, nil
}

// fillVolume makes a directory with one of everything, and returns the big file's content.
func fillVolume(t *testing.T, dir string) []byte {
	t.Helper()
	big := make([]byte, 3<<20+777)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(big)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(at("a/b/c"), 0o750))
	must(os.WriteFile(at("big"), big, 0o640))
	must(os.WriteFile(at("a/b/small"), []byte("hello"), 0o444))
	must(os.WriteFile(at("empty"), nil, 0o600))
	must(os.Link(at("big"), at("a/hard")))
	must(os.Symlink("../../big", at("a/b/sym")))
	must(unix.Mkfifo(at("fifo"), 0o622))
	f, err := os.Create(at("sparse"))
	must(err)
	defer f.Close()
	must(f.Truncate(64 << 20))
	_, err = f.WriteAt(big[:100<<10], 10<<20)
	must(err)
	_, err = f.WriteAt([]byte("end"), 50<<20+5)
	must(err)
	must(unix.Setxattr(at("big"), "user.note", []byte("value\x00with zero"), 0))
	must(unix.Setxattr(at("a"), "user.dir", bytes.Repeat([]byte("x"), 3000), 0))
	for _, name := range []string{"big", "a/b/small", "empty", "a/b", "a"} {
		must(os.Chtimes(at(name), fakeTime.Time(), fakeTime.Time()))
	}
	if os.Geteuid() == 0 {
		must(os.Chown(at("empty"), 12345, 54321))
		must(os.Chmod(at("empty"), 0o4711))
		must(unix.Mknod(at("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	}
	if setfacl, err := exec.LookPath("setfacl"); err == nil {
		run(t, setfacl, "-m", "u:12345:rwx,g:54321:r", at("a/b/small"))
		run(t, setfacl, "-d", "-m", "u:12345:rx", at("a"))
	}
	return big
}

// sealed fills a volume, seals it as snapshot "s", and mounts the tree.
func sealed(t *testing.T) (vol, shown, state string, f *FS, log *logBuffer) {
	t.Helper()
	dir := t.TempDir()
	vol, state = filepath.Join(dir, "vol"), filepath.Join(dir, "state")
	for _, d := range []string{vol, state} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fillVolume(t, vol)
	ctx := context.Background()
	log = new(logBuffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	repo, err := snapshot.Open(ctx, snapshot.Config{State: state, Log: logger, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repo.Close() })
	src, err := newDirSource(vol)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := repo.Begin("s", snapshot.BeginOptions{Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	if snap, err = repo.Seal(ctx, snap, src, nil); err != nil || snap.State != index.StateComplete {
		t.Fatalf("%+v, %v", snap, err)
	}
	f = New(repoCatalogue{repo}, logger)
	t.Cleanup(f.Close)
	return vol, filepath.Join(mountTest(t, f), "s"), state, f, log
}

// each calls fn for every path below a directory, relative to it.
func each(t *testing.T, dir string, fn func(rel string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		fn(rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSealedSnapshotIsTheVolume(t *testing.T) {
	vol, shown, _, _, _ := sealed(t)
	count := 0
	each(t, vol, func(rel string) {
		count++
		compareInode(t, filepath.Join(vol, rel), filepath.Join(shown, rel))
	})
	each(t, shown, func(string) { count-- })
	if count != 0 {
		t.Errorf("%d paths too few", count)
	}
	run(t, "diff", "-r", "--no-dereference", "--exclude=fifo", "--exclude=dev", vol, shown)
	// As a user takes files back.
	to := filepath.Join(t.TempDir(), "copy")
	run(t, "cp", "-a", "--sparse=auto", shown, to)
	each(t, vol, func(rel string) { compareInode(t, filepath.Join(vol, rel), filepath.Join(to, rel)) })
	run(t, "diff", "-r", "--no-dereference", "--exclude=fifo", "--exclude=dev", vol, to)
	if a, b := ino(t, filepath.Join(to, "big")), ino(t, filepath.Join(to, "a/hard")); a != b {
		t.Error("cp took a hard link for two files")
	}
}

func ino(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func compareInode(t *testing.T, want, got string) {
	t.Helper()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Lstat(want, &a), unix.Lstat(got, &b)); err != nil {
		t.Fatal(err)
	}
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Nlink != b.Nlink || a.Mtim != b.Mtim {
		t.Errorf("%s: %+v, want %+v", got, b, a)
	}
	if a.Mode&unix.S_IFMT == unix.S_IFREG {
		if a.Size != b.Size || b.Blocks > a.Blocks+8 {
			t.Errorf("%s: size %d, %d blocks; want %d, %d", got, b.Size, b.Blocks, a.Size, a.Blocks)
		}
		if x, y := dataMap(t, want), dataMap(t, got); !slices.Equal(x, y) {
			t.Errorf("%s: data at %v, want %v", got, y, x)
		}
	}
	x, err1 := xattrsOf(want)
	y, err2 := xattrsOf(got)
	if err := errors.Join(err1, err2); err != nil {
		t.Errorf("%s: %v", got, err)
	}
	for i := range max(len(x), len(y)) {
		if i >= len(x) || i >= len(y) || x[i].Name != y[i].Name || !bytes.Equal(x[i].Value, y[i].Value) {
			t.Errorf("%s: xattrs %q, want %q", got, y, x)
			break
		}
	}
}

// dataMap finds where data begins and ends, with SEEK_DATA and SEEK_HOLE.
func dataMap(t *testing.T, path string) (edges []int64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	off := int64(0)
	for _, whence := 0, unix.SEEK_DATA; ; whence = unix.SEEK_DATA + unix.SEEK_HOLE - whence {
		if off, err = unix.Seek(fd, off, whence); errors.Is(err, unix.ENXIO) {
			return edges
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		edges = append(edges, off)
	}
}

// Permissions and ACLs of the snapshot hold for other users.
func TestSealedPermissions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs other users")
	}
	vol, shown, _, _, _ := sealed(t)
	// The temporary directory itself is closed to others; the walk there isn't what is tested.
	for d := filepath.Dir(vol); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	for d := filepath.Dir(filepath.Dir(shown)); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	for _, uid := range []uint32{12345, 23456} {
		each(t, vol, func(rel string) {
			want, got := readableBy(filepath.Join(vol, rel), uid), readableBy(filepath.Join(shown, rel), uid)
			if want != got {
				t.Errorf("%s, user %d: readable %v, want %v", rel, uid, got, want)
			}
		})
	}
}

func readableBy(path string, uid uint32) bool {
	cmd := exec.Command("test", "-r", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd.Run() == nil
}

// A damaged store gives EIO and a log line, and no byte that was not written.
func TestSealedDamage(t *testing.T) {
	vol, shown, state, _, log := sealed(t)
	want, err := os.ReadFile(filepath.Join(vol, "big"))
	if err != nil {
		t.Fatal(err)
	}
	var packs []string
	filepath.WalkDir(filepath.Join(state, "store", "packs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".pack") {
			packs = append(packs, path)
		}
		return err
	})
	for _, p := range packs {
		flip(t, p)
	}
	fd, err := os.Open(filepath.Join(shown, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	failed := 0
	buf := make([]byte, 4096)
	for off := 0; off < len(want); off += len(buf) {
		n, err := fd.ReadAt(buf, int64(off))
		if errors.Is(err, syscall.EIO) {
			failed++
		}
		if n > 0 && !bytes.Equal(buf[:n], want[off:off+n]) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
	if failed == 0 || log.lines("path=/") == 0 || log.lines("chunk") == 0 {
		t.Errorf("%d reads failed; log:\n%s", failed, log.b.String())
	}
}

// flip changes a byte in every 64 KiB of the part of a pack that holds big's data, which can't be compressed.
func flip(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		os.Chmod(path, 0o600)
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(64 << 10); off < fi.Size()-(256<<10); off += 64 << 10 {
		var b [1]byte
		f.ReadAt(b[:], off)
		b[0] ^= 0x40
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
}
