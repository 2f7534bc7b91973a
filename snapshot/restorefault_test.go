package snapshot

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// damageSegment flips a byte of the chunk that a segment of a stored file begins with.
func damageSegment(t *testing.T, state string, snapName string, ino, seg uint64) {
	t.Helper()
	r := openRepo(t, state)
	snap, err := r.Resolve(snapName)
	if err != nil {
		t.Fatal(err)
	}
	rec, ok, err := openReader(t, r, snap).view().record(t.Context(), ino)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	val, ok, err := r.nodes.Get(t.Context(), rec.Content, seg, "")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	s, err := tree.DecodeSegment(val)
	if err != nil {
		t.Fatal(err)
	}
	loc, ok, err := r.db.Locate(s.Extents[0].Chunk)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	closeRepo(t, r)
	for _, path := range filesBelow(t, filepath.Join(state, "store", "packs")) {
		if strings.Contains(path, loc.Pack.String()) {
			p := readFile(t, path)
			p[loc.Offset+loc.Length/2] ^= 0x40
			write(t, path, p)
		}
	}
}

// TestRestoreFromADamagedStore restores all but what is damaged.
func TestRestoreFromADamagedStore(t *testing.T) {
	v, files := plainModel(t, 6, "bad", "good")
	state, dest := t.TempDir(), t.TempDir()
	r := openRepo(t, state)
	src := v.barrier(true)
	snap := seal(t, r, src)
	closeRepo(t, r)
	damageSegment(t, state, snap.Name, files["bad"].Ino, 2)
	r = openRepo(t, state)
	defer closeRepo(t, r)
	rd, err := r.Reader(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	res, err := Restore(t.Context(), rd, RestoreOptions{Dest: dest})
	var failed *RestoreError
	if !errors.As(err, &failed) || !errors.Is(err, chunkstore.ErrCorrupt) || failed.Count != 1 || res.Files != 1 {
		t.Fatalf("%+v: %v", res, err)
	}
	p := failed.Problems[0]
	if p.Path != "bad" || p.Kept != "bad.damaged" || len(p.Ranges) != 1 || p.Ranges[0] != (Range{2 * SegmentSize, SegmentSize}) {
		t.Errorf("%+v", p)
	}
	if err := compareRestoredFile(filepath.Join(dest, "good"), src.inos[files["good"].Ino], true); err != nil {
		t.Error(err)
	}
	t.Log(err)
}

// TestRestoreToAFullDisk says what to do, and goes on where it was when there is room.
func TestRestoreToAFullDisk(t *testing.T) {
	needRoot(t)
	v, _ := plainModel(t, 7, "a", "b", "c", "d")
	src := v.barrier(true)
	dest := t.TempDir()
	if err := unix.Mount("none", dest, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("can't mount a tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dest, 0); err != nil {
			t.Error(err)
		}
	})
	_, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "run the same restore again") {
		t.Errorf("got %v", err)
	}
	if err := unix.Mount("none", dest, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	res, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest})
	if err == nil {
		err = compareRestored(dest, src, false)
	}
	if err != nil || res.Written >= res.Bytes {
		t.Errorf("%+v: %v", res, err)
	}
}

const userEnv = "GRAPHVOL_TEST_RESTORE_AS_USER"

// TestRestoreWithoutRoot runs itself as another user.
func TestRestoreWithoutRoot(t *testing.T) {
	if dir := os.Getenv(userEnv); dir != "" {
		restoreAsUser(t, dir)
		return
	}
	needRoot(t)
	dir, err := os.MkdirTemp("", "restore-as-user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	bin, err := os.OpenFile(filepath.Join(dir, "test"), os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(bin, exe)
	if err := errors.Join(err, bin.Close(), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin.Name(), "-test.run=^TestRestoreWithoutRoot$", "-test.v")
	cmd.Env = append(os.Environ(), userEnv+"="+dir)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func restoreAsUser(t *testing.T, dir string) {
	v, files := plainModel(t, 8, "mine", "setuid")
	root := v.inos[fakeRoot]
	files["setuid"].Mode, files["setuid"].UID = tree.ModeRegular|0o4755, 3
	files["mine"].Xattrs = []tree.Xattr{{Name: "trusted.t", Value: []byte("x")}, {Name: "user.u", Value: []byte("y")}}
	closed := v.make(v.newIno(), tree.ModeDir)
	closed.UID = uint32(os.Geteuid())
	v.setName(root, "closed", closed.Ino)
	files["mine"].Nlink = 2
	v.setName(closed, "link", files["mine"].Ino)
	v.setName(root, "device", v.make(v.newIno(), tree.ModeChar|0o600).Ino)
	src := v.barrier(true)
	dest := filepath.Join(dir, "dest")
	for range 2 {
		var mu sync.Mutex
		var warned []string
		warn := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			warned = append(warned, err.Error())
		}
		if _, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest, Warn: warn}); err != nil {
			t.Fatal(err)
		}
		all := strings.Join(warned, "; ")
		for _, part := range []string{"owner", "trusted.t", "device"} {
			if !strings.Contains(all, part) {
				t.Errorf("no warning of %s: %s", part, all)
			}
		}
		var st, cl unix.Stat_t
		if err := errors.Join(unix.Stat(filepath.Join(dest, "setuid"), &st), unix.Stat(filepath.Join(dest, "closed"), &cl)); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o755 || cl.Mode&0o7777 != 0 {
			t.Errorf("modes %o, %o", st.Mode, cl.Mode)
		}
		if xs, err := xattrsOf(filepath.Join(dest, "mine")); err != nil || len(xs) != 1 || xs[0].Name != "user.u" {
			t.Errorf("%v, %v", xs, err)
		}
	}
	if err := os.Chmod(filepath.Join(dest, "closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(dest, "mine"), &a), unix.Stat(filepath.Join(dest, "closed/link"), &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("not linked, %v", err)
	}
}
