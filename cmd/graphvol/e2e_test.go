package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// world is a volume on a real mount below a temporary directory, used as a user does: by commands.
type world struct {
	t                   *testing.T
	backing, mnt, state string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, backing: filepath.Join(dir, "graph"), mnt: filepath.Join(dir, "mnt"), state: filepath.Join(dir, "graph.graphvol")}
	for _, d := range []string{w.backing, w.mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, point := range []string{w.mnt, w.backing} {
			if err := unix.Unmount(point, unix.MNT_DETACH); err == nil {
				t.Errorf("%s was still mounted", point)
			}
		}
		if t.Failed() {
			w.showLogs()
		}
	})
	return w
}

func (w *world) showLogs() {
	for _, name := range []string{"agent.log", "holder.log", "offline.log", "stderr.log"} {
		if b, err := os.ReadFile(filepath.Join(w.state, "log", name)); err == nil && len(b) > 0 {
			w.t.Logf("%s:\n%s", name, b)
		}
	}
}

// try runs a command.
func (w *world) try(args ...string) (code int, out, errOut string) {
	w.t.Helper()
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e, version: "test"}
	code = a.run(w.t.Context(), args)
	return code, o.String(), e.String()
}

// run runs a command that must succeed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	code, out, errOut := w.try(args...)
	if code != exitDone {
		w.t.Fatalf("graphvol %s: exit code %d: %s", strings.Join(args, " "), code, errOut)
	}
	return out
}

// json runs a command that must succeed and decodes what it prints.
func (w *world) json(v any, args ...string) {
	w.t.Helper()
	out := w.run(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("graphvol %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// refused runs a command that must fail with one line that holds want.
func (w *world) refused(want string, args ...string) {
	w.t.Helper()
	code, _, errOut := w.try(args...)
	if code != exitFailed || !strings.Contains(errOut, want) || strings.Count(errOut, "\n") != 1 {
		w.t.Errorf("graphvol %s: exit code %d, %q; want %q", strings.Join(args, " "), code, errOut, want)
	}
}

func (w *world) write(name string, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.mnt, name), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) is(path string, want []byte) {
	w.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		w.t.Error(err)
		return
	}
	if !bytes.Equal(got, want) {
		w.t.Errorf("%s has %d bytes that differ from the %d expected", path, len(got), len(want))
	}
}

func (w *world) isMissing(path string) {
	w.t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("%s: %v", path, err)
	}
}

func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

func TestEndToEnd(t *testing.T) {
	w := newWorld(t)
	w.run("mount", w.backing, w.mnt)
	one := w.fill()
	s1 := w.snapshot("one")
	if s1.Kind != "full" || s1.State != "complete" || s1.Files != 4 || len(s1.ChecksumSHA256) != 64 {
		t.Errorf("first snapshot: %+v", s1)
	}
	two := w.change(one)
	w.checkDirty()
	s2 := w.snapshot("two")
	if s2.Kind != "incremental" || s2.Parent != s1.ID || s2.DirtyBytes > 1<<20 {
		t.Errorf("second snapshot: %+v", s2)
	}
	w.checkDiff(w.mnt)
	w.checkBrowse(one, two)
	w.checkRestore(one)
	w.checkVerify(2)
	w.checkServerDeath(two)
	w.checkRefusals()
	w.checkDelete(two)
	w.run("umount", w.mnt)
	w.is(filepath.Join(w.backing, "data/nodes.db"), two["data/nodes.db"])
	w.checkOffline(two)
	w.checkOverItself(two)
}

// fill makes files of several kinds and tells the content of the regular ones.
func (w *world) fill() map[string][]byte {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Join(w.mnt, "data/deep"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	files := map[string][]byte{
		"data/nodes.db":     noise(1, 8<<20),
		"data/deep/edges":   noise(2, 300_001),
		"CURRENT":           []byte("MANIFEST-1\n"),
		"data/to be gone 1": noise(3, 70_000),
	}
	for name, b := range files {
		w.write(name, b)
	}
	steps := []error{
		os.Symlink("nodes.db", filepath.Join(w.mnt, "data/link")),
		os.Link(filepath.Join(w.mnt, "CURRENT"), filepath.Join(w.mnt, "data/CURRENT")),
		unix.Setxattr(filepath.Join(w.mnt, "CURRENT"), "user.kind", []byte("pointer"), 0),
		os.Chmod(filepath.Join(w.mnt, "CURRENT"), 0o640),
	}
	if err := errors.Join(steps...); err != nil {
		w.t.Fatal(err)
	}
	return files
}

// change changes some of it: a block, a name, a removal, a new file.
func (w *world) change(before map[string][]byte) map[string][]byte {
	w.t.Helper()
	after := make(map[string][]byte)
	for name, b := range before {
		after[name] = bytes.Clone(b)
	}
	f, err := os.OpenFile(filepath.Join(w.mnt, "data/nodes.db"), os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	page := noise(9, 4096)
	_, err = f.WriteAt(page, 5<<20)
	copy(after["data/nodes.db"][5<<20:], page)
	after["new"] = noise(10, 10_000)
	after["data/moved"] = after["data/deep/edges"]
	delete(after, "data/deep/edges")
	delete(after, "data/to be gone 1")
	err = errors.Join(err, f.Sync(), f.Close(),
		os.Rename(filepath.Join(w.mnt, "data/deep/edges"), filepath.Join(w.mnt, "data/moved")),
		os.Remove(filepath.Join(w.mnt, "data/to be gone 1")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("new", after["new"])
	return after
}

func (w *world) snapshot(name string) (row snapshotRow) {
	w.t.Helper()
	w.json(&row, "snapshot", w.mnt, "--name", name)
	if row.PauseMS <= 0 || row.PauseMS > 1000 {
		w.t.Errorf("snapshot %s paused for %v ms", name, row.PauseMS)
	}
	return row
}

func (w *world) checkDirty() {
	w.t.Helper()
	var d struct {
		Files      []dirtyRow `json:"files"`
		DirtyBytes int64      `json:"dirty_bytes"`
	}
	w.json(&d, "dirty", w.mnt, "--ranges")
	found := false
	for _, f := range d.Files {
		if f.Path == "data/nodes.db" {
			found = true
			if f.DirtyBytes != 4096 || len(f.Ranges) != 1 || f.Ranges[0] != (rangeRow{5 << 20, 4096}) {
				w.t.Errorf("data/nodes.db: %+v", f)
			}
		}
	}
	if !found || d.DirtyBytes < 4096+10_000 || d.DirtyBytes > 1<<20 {
		w.t.Errorf("dirty: %+v", d)
	}
}

func (w *world) checkDiff(volume string) {
	w.t.Helper()
	var d struct {
		Changes []changeRow `json:"changes"`
	}
	w.json(&d, "diff", volume, "one", "two", "--ranges")
	got := make(map[string]changeRow)
	for _, c := range d.Changes {
		got[c.Path] = c
	}
	if c := got["data/nodes.db"]; c.Kind != "modified" || !c.Content || len(c.Ranges) != 1 || c.Ranges[0] != (rangeRow{5 << 20, 4096}) {
		w.t.Errorf("data/nodes.db: %+v", c)
	}
	if c := got["data/moved"]; c.Kind != "renamed" || c.OldPath != "data/deep/edges" {
		w.t.Errorf("data/moved: %+v", c)
	}
	for name, kind := range map[string]string{"new": "added", "data/to be gone 1": "removed"} {
		if got[name].Kind != kind {
			w.t.Errorf("%s: %+v", name, got[name])
		}
	}
}

func (w *world) checkBrowse(one, two map[string][]byte) {
	w.t.Helper()
	snaps := filepath.Join(w.mnt, ".snapshots")
	for name, files := range map[string]map[string][]byte{"one": one, "two": two} {
		w.sameTree(filepath.Join(snaps, name), files)
	}
	w.isMissing(filepath.Join(snaps, "two/data/deep/edges"))
	if err := os.WriteFile(filepath.Join(snaps, "one/x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		w.t.Errorf("writing to a snapshot: %v", err)
	}
	dest := filepath.Join(w.t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", filepath.Join(snaps, "one"), dest).CombinedOutput(); err != nil {
		w.t.Errorf("cp: %v: %s", err, out)
	}
	w.sameTree(dest, one)
	ents, err := os.ReadDir(w.mnt)
	if err != nil {
		w.t.Error(err)
	}
	for _, e := range ents {
		if e.Name() == ".snapshots" {
			w.t.Error(".snapshots is listed")
		}
	}
}

// sameTree checks content, and what fill made of other kinds.
func (w *world) sameTree(dir string, files map[string][]byte) {
	w.t.Helper()
	for name, b := range files {
		w.is(filepath.Join(dir, name), b)
	}
	if to, err := os.Readlink(filepath.Join(dir, "data/link")); to != "nodes.db" {
		w.t.Errorf("%s/data/link: %q, %v", dir, to, err)
	}
	var a, b unix.Stat_t
	err := errors.Join(unix.Stat(filepath.Join(dir, "CURRENT"), &a), unix.Stat(filepath.Join(dir, "data/CURRENT"), &b))
	if err != nil || a.Ino != b.Ino || a.Nlink != 2 || a.Mode&0o7777 != 0o640 {
		w.t.Errorf("%s/CURRENT: %+v, %+v, %v", dir, a, b, err)
	}
	val := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(dir, "CURRENT"), "user.kind", val); err != nil || string(val[:n]) != "pointer" {
		w.t.Errorf("%s/CURRENT: user.kind %q, %v", dir, val[:max(n, 0)], err)
	}
}

func (w *world) checkRestore(one map[string][]byte) {
	w.t.Helper()
	dest := filepath.Join(w.t.TempDir(), "restored")
	var r restoreRow
	w.json(&r, "restore", w.mnt, "one", dest)
	w.sameTree(dest, one)
	if r.Files != 4 && r.Files != 5 {
		w.t.Errorf("restore: %+v", r)
	}
	w.json(&r, "restore", w.mnt, "one", dest)
	if r.WrittenBytes != 0 {
		w.t.Errorf("restoring what is there already wrote %d bytes", r.WrittenBytes)
	}
	part := filepath.Join(w.t.TempDir(), "part")
	w.run("restore", w.mnt, "one", part, "data/deep")
	w.is(filepath.Join(part, "data/deep/edges"), one["data/deep/edges"])
	w.isMissing(filepath.Join(part, "CURRENT"))
	w.refused("restore to the mount", "restore", w.mnt, "one", w.backing)
	w.refused("state directory", "restore", w.mnt, "one", filepath.Join(w.state, "x"))
	w.refused("no such path", "restore", w.mnt, "one", filepath.Join(part, "y"), "data/nonsense")
}

func (w *world) checkVerify(n int64) {
	w.t.Helper()
	for _, flag := range []string{"--read-data=false", "--read-data"} {
		var v verifyRow
		w.json(&v, "verify", w.mnt, flag)
		if v.Snapshots != n || len(v.Problems) != 0 || v.Chunks == 0 {
			w.t.Errorf("verify %s: %+v", flag, v)
		}
	}
}

func (w *world) status(volume string) (row statusRow) {
	w.t.Helper()
	var s struct {
		Volumes []statusRow `json:"volumes"`
	}
	w.json(&s, "status", volume)
	if len(s.Volumes) != 1 {
		w.t.Fatalf("status: %+v", s)
	}
	return s.Volumes[0]
}

// checkServerDeath kills the server: the mount serves on, and an open file works.
func (w *world) checkServerDeath(two map[string][]byte) {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.mnt, "new"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	before := w.status(w.mnt)
	if before.Mount != w.mnt || before.Backing != w.backing || before.State != w.state || before.HolderPID == 0 || before.Snapshots != 2 || before.StoreBytes == 0 {
		w.t.Errorf("status: %+v", before)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", before.ServerPID))
	if s := before.Server; err != nil || s == nil || s.Goroutines < 5 || s.ResidentBytes < 1<<20 || s.HeapBytes == 0 || s.OpenFiles < int64(len(fds))-8 || s.OpenFiles > int64(len(fds))+8 {
		w.t.Errorf("status of the server, which has %d files open (%v): %+v", len(fds), err, s)
	}
	if err := unix.Kill(int(before.ServerPID), unix.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	got := make([]byte, len(two["new"]))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, two["new"]) {
		w.t.Errorf("reading through the death of the server: %v", err)
	}
	after := w.status(w.mnt)
	if after.ServerPID == before.ServerPID || after.HolderPID != before.HolderPID {
		w.t.Errorf("status after the server's death: %+v, before: %+v", after, before)
	}
	w.is(filepath.Join(w.mnt, ".snapshots/one/CURRENT"), []byte("MANIFEST-1\n"))
}

func (w *world) checkRefusals() {
	w.t.Helper()
	w.refused("already", "mount", w.backing, w.mnt)
	w.refused("already", "mount", w.backing, w.t.TempDir())
	w.refused("there is a snapshot named \"one\" already", "snapshot", w.mnt, "--name", "one")
	w.refused("slash", "snapshot", w.mnt, "--name", "a/b")
	w.refused("one", "delete", w.mnt, "onne")
	f, err := os.Open(filepath.Join(w.mnt, "new"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.refused("is busy", "umount", w.mnt)
	f.Close()
	if s := w.snapshot("after busy"); s.State != "complete" {
		w.t.Errorf("snapshot after a failed unmount: %+v", s)
	}
	w.run("delete", w.mnt, "after busy")
}

func (w *world) checkDelete(two map[string][]byte) {
	w.t.Helper()
	w.run("delete", w.mnt, "one")
	w.isMissing(filepath.Join(w.mnt, ".snapshots/one"))
	var p pruneRow
	w.json(&p, "prune", w.mnt)
	w.sameTree(filepath.Join(w.mnt, ".snapshots/two"), two)
	w.checkVerify(1)
	var list struct {
		Snapshots []snapshotRow `json:"snapshots"`
	}
	w.json(&list, "snapshots", w.mnt)
	if len(list.Snapshots) != 1 || list.Snapshots[0].Name != "two" {
		w.t.Errorf("snapshots: %+v", list)
	}
}

func (w *world) checkOffline(two map[string][]byte) {
	w.t.Helper()
	for _, volume := range []string{w.backing, w.state} {
		if s := w.status(volume); s.Mount != "" || s.ServerPID != 0 || s.Snapshots != 1 || s.Backing != w.backing {
			w.t.Errorf("status offline: %+v", s)
		}
		w.run("snapshots", volume)
		w.run("dirty", volume)
		w.run("verify", volume, "--read-data")
		w.run("diff", volume, "two", "latest")
	}
	dest := filepath.Join(w.t.TempDir(), "offline")
	w.run("restore", w.state, "latest", dest)
	w.sameTree(dest, two)
	w.run("prune", w.state, "--dry-run")
	w.refused("mount it first", "snapshot", w.backing)
	w.refused("no volume is mounted", "umount", w.mnt)
	w.refused("is not mounted", "umount", w.backing)
}

// restoreInPlace sets a mounted volume back, by way of its own mount.
func (w *world) restoreInPlace(mount string, extra []byte) {
	w.t.Helper()
	data := filepath.Join(mount, "data/nodes.db")
	good, err := os.ReadFile(data)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(mount, "extra"), []byte("spoilt"), 0o600), os.Truncate(data, 1<<20), os.Remove(filepath.Join(mount, "new")))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	var r restoreRow
	w.json(&r, "restore", mount, "three", mount, "--delete")
	if r.WrittenBytes < 7<<20 || r.WrittenBytes > 8<<20 {
		w.t.Errorf("restore in place: %+v", r)
	}
	w.is(data, good)
	w.is(filepath.Join(mount, "extra"), extra)
	w.refused("among the snapshots", "restore", mount, "three", filepath.Join(mount, ".snapshots/x"))
	w.refused("no such path", "restore", mount, "three", mount, "nonsense")
}

func (w *world) checkOverItself(two map[string][]byte) {
	w.t.Helper()
	w.run("mount", w.backing, w.backing)
	w.sameTree(w.backing, two)
	extra := []byte(fmt.Sprintln("written at", time.Now()))
	if err := os.WriteFile(filepath.Join(w.backing, "extra"), extra, 0o600); err != nil {
		w.t.Fatal(err)
	}
	var s snapshotRow
	w.json(&s, "snapshot", w.backing, "--name", "three")
	// The newest one was deleted, so what changed since the one before is not known any more.
	if s.Kind != "full" || s.StoredBytes > 1<<20 {
		w.t.Errorf("snapshot over itself: %+v", s)
	}
	w.json(&s, "snapshot", w.backing, "--name", "four")
	if s.Kind != "incremental" || s.DirtyBytes != 0 {
		w.t.Errorf("second snapshot over itself: %+v", s)
	}
	w.restoreInPlace(w.backing, extra)
	w.is(filepath.Join(w.backing, ".snapshots/three/extra"), extra)
	w.isMissing(filepath.Join(w.backing, ".snapshots/two/extra"))
	if st := w.status(w.state); st.Mount != w.backing {
		w.t.Errorf("status over itself: %+v", st)
	}
	w.run("umount", w.backing)
	w.is(filepath.Join(w.backing, "extra"), extra)
	w.isMissing(filepath.Join(w.backing, ".snapshots"))
}
