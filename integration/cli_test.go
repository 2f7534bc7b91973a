package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

func commands() []string {
	return []string{"mount", "umount", "snapshot", "snapshots", "dirty", "diff", "restore", "delete", "prune", "verify", "status", "upgrade", "rebuild", "sync", "attach", "scrub", "repair", "mount-store", "target", "key", "forget", "keep", "release"}
}

func TestHelp(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	for _, cmd := range commands() {
		out, err := v.Run(t.Context(), cmd, "--help")
		if err != nil || !strings.Contains(out, "Examples:") {
			t.Errorf("graphvol %s --help: %v; no examples in %q", cmd, err, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, err := v.Run(t.Context(), "completion", shell); err != nil || len(out) < 500 {
			t.Errorf("completion %s: %v, %d bytes", shell, err, len(out))
		}
	}
}

// fields fails where a JSON document lacks one of the names at path, a list of keys and "[]" for the first element.
func fields(t *testing.T, doc string, path []string, names ...string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Errorf("not JSON: %v: %s", err, doc)
		return
	}
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			if len(x) == 0 {
				t.Errorf("empty list at %v: %s", path, doc)
				return
			}
			v = x[0]
		}
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.Errorf("nothing at %v: %s", path, doc)
		return
	}
	for _, n := range names {
		if _, ok := m[n]; !ok {
			t.Errorf("no %q at %v: %s", n, path, doc)
		}
	}
}

func TestJSON(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	rig.WriteFile(t, filepath.Join(v.Mount, "file"), 100_000)
	run := func(args ...string) string {
		out, err := v.Run(t.Context(), append(args, "--json")...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	snap := []string{"id", "name", "kind", "parent", "state", "created", "pause_ms", "seal_ms", "files", "bytes", "dirty_bytes",
		"stored_bytes", "checksum_sha256"}
	fields(t, run("snapshot", v.Mount, "--name", "a"), nil, snap...)
	rig.WriteFile(t, filepath.Join(v.Mount, "file"), 50_000)
	if err := fsyncFile(filepath.Join(v.Mount, "file")); err != nil {
		t.Fatal(err)
	}
	fields(t, run("dirty", v.Mount), nil, "files", "dirty_bytes")
	fields(t, run("dirty", v.Mount), []string{"files", "[]"}, "path", "dirty_bytes")
	fields(t, run("snapshot", v.Mount, "--name", "b"), nil, snap...)
	fields(t, run("status", v.Mount), []string{"volumes", "[]"}, "mount", "backing", "state", "server_pid", "holder_pid", "epoch",
		"dirty_bytes", "snapshots", "store_bytes", "version")
	fields(t, run("status", v.Mount), []string{"volumes", "[]", "server"}, "started", "goroutines", "open_files", "max_open_files",
		"resident_bytes", "heap_bytes")
	all, err := v.Snapshots(t.Context())
	if err != nil || len(all) != 2 || all[0].Kind != "full" || all[1].Kind != "incremental" || all[1].Parent == "" || all[0].Checksum == "" {
		t.Errorf("snapshots: %+v, %v", all, err)
	}
	for _, args := range [][]string{{"diff", v.Mount, "a", "b"}, {"diff", v.Mount, "a", "b", "--ranges"}, {"verify", v.Mount, "--read-data"}, {"prune", v.Mount}} {
		if out := run(args...); !json.Valid([]byte(out)) {
			t.Errorf("graphvol %v --json: %s", args, out)
		}
	}
}

// TestOverItself mounts a volume over its own backing.
func TestOverItself(t *testing.T) {
	dir := t.TempDir()
	v := rig.NewVolume(t, volume.Options{Dir: dir, Backing: filepath.Join(dir, "srv"), Mount: filepath.Join(dir, "srv")})
	before := rig.WriteFile(t, filepath.Join(v.Backing, "before"), 5000)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	during := rig.WriteFile(t, filepath.Join(v.Mount, "during"), 5000)
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("s"), "before"), before)
	rig.SameFile(t, filepath.Join(v.SnapshotDir("s"), "during"), during)
	if err := v.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.Backing, "during"), during)
}

// TestStrangeNames: names of files that scripts trip over, through snapshot, diff, cp and restore.
func TestStrangeNames(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	names := []string{"-rf", " ", "new\nline", "\xff\xfe", "tab\t\"'\\", strings.Repeat("ü", 127), "*", "…", ".hidden", "a:b"}
	want := map[string][]byte{}
	for i, n := range names {
		want[n] = rig.WriteFile(t, filepath.Join(v.Mount, n), 1000+i)
	}
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		rig.WriteFile(t, filepath.Join(v.Mount, n), 10)
	}
	if _, err := v.Snapshot(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"diff", v.Mount, "s", "t"}, {"diff", v.Mount, "s", "t", "--json"}, {"dirty", v.Mount}} {
		out, err := v.Run(t.Context(), args...)
		if err != nil {
			t.Errorf("graphvol %v: %v", args, err)
		}
		if strings.Contains(out, "new\nline") {
			t.Errorf("graphvol %v prints a file name's line break as it is", args)
		}
	}
	dest := filepath.Join(v.Dir, "dest")
	if _, err := v.Run(t.Context(), "restore", v.Mount, "s", dest); err != nil {
		t.Fatal(err)
	}
	for n, w := range want {
		rig.SameFile(t, filepath.Join(v.SnapshotDir("s"), n), w)
		rig.SameFile(t, filepath.Join(dest, n), w)
	}
	if out, err := exec.Command("diff", "-r", v.SnapshotDir("s"), dest).CombinedOutput(); err != nil {
		t.Errorf("diff -r: %v: %s", err, out)
	}
}

// TestForget: a policy deletes what it doesn't keep, after it has said so; what is held stays.
func TestForget(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	run := func(args ...string) string {
		t.Helper()
		out, err := v.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	names := func() (all string) {
		t.Helper()
		list, err := v.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			all += s.Name + " "
		}
		return all
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		rig.WriteFile(t, filepath.Join(v.Mount, "file"), 1<<20)
		args := []string{"snapshot", v.Mount, "--name", name}
		if name == "a" {
			args = append(args, "--tag", "release", "--tag", "audit")
		}
		run(args...)
	}
	refused(t, v, exitFailed, []string{"tag", "comma"}, "snapshot", v.Mount, "--tag", "x,y")
	if out := run("snapshots", v.Mount, "--tag", "release"); !strings.Contains(out, "audit release") || strings.Count(out, "\n") != 2 {
		t.Errorf("those with the tag: %s", out)
	}
	refused(t, v, exitUsage, []string{"--keep-last"}, "forget", v.Mount)
	run("keep", v.Mount, "b", "--reason", "audit")
	refused(t, v, exitFailed, []string{"held", "audit", "graphvol release"}, "delete", v.Mount, "b")
	if out := run("forget", v.Mount, "--keep-last", "2", "--dry-run"); !strings.Contains(out, "would delete 2 snapshots, kept 3") {
		t.Errorf("dry run: %s", out)
	}
	if got := names(); got != "a b c d e " {
		t.Errorf("a dry run has left %s", got)
	}
	run("forget", v.Mount, "--keep-last", "2", "--keep-tag", "release", "--prune")
	if got := names(); got != "a b d e " {
		t.Errorf("left: %s", got)
	}
	run("forget", v.Mount, "--keep-last", "2", "--prune")
	if got := names(); got != "b d e " {
		t.Errorf("left: %s", got)
	}
	run("release", v.Mount, "b")
	run("forget", v.Mount, "--keep-yearly", "3", "--prune")
	if got := names(); got != "e " {
		t.Errorf("left: %s", got)
	}
	run("verify", v.Mount, "--read-data")
}

// TestDeleteAndVerify: a deleted snapshot is gone, the others stay whole; damage is found and never served.
func TestDeleteAndVerify(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	file := filepath.Join(v.Mount, "file")
	var want [][]byte
	for _, name := range []string{"a", "b", "c"} {
		want = append(want, rig.WriteFile(t, file, 3<<20))
		if _, err := v.Snapshot(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Run(t.Context(), "delete", v.Mount, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Run(t.Context(), "prune", v.Mount); err != nil {
		t.Fatal(err)
	}
	if exists(v.SnapshotDir("b")) {
		t.Error("a deleted snapshot can be browsed")
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("a"), "file"), want[0])
	rig.SameFile(t, filepath.Join(v.SnapshotDir("c"), "file"), want[2])
	if _, err := v.Run(t.Context(), "verify", v.Mount, "--read-data"); err != nil {
		t.Error(err)
	}
	if err := v.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := damage(t, filepath.Join(v.StateDir(), "store", "packs")); n == 0 {
		t.Fatal("no packs found")
	}
	refused(t, v, exitFailed, nil, "verify", v.Backing, "--read-data")
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(v.SnapshotDir("a"), "file"))
	if err == nil || !errors.Is(err, unix.EIO) {
		t.Errorf("reading a damaged snapshot: %v, want EIO", err)
	}
	if !bytes.HasPrefix(want[0], got) {
		t.Error("wrong bytes were served")
	}
}

// damage flips a byte in the middle third of every large pack.
func damage(t *testing.T, packs string) int {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(packs, "*", "*"))
	count := 0
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) < 1<<20 {
			continue
		}
		for at := len(raw) / 4; at < len(raw)*3/4; at += 64 << 10 {
			raw[at] ^= 0x40
		}
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, raw, 0o600)); err != nil {
			t.Fatal(err)
		}
		count++
	}
	return count
}

// TestRestoreInPlace writes back into the mount, after the files were damaged there.
func TestRestoreInPlace(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	sub := filepath.Join(v.Mount, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := rig.WriteFile(t, filepath.Join(v.Mount, "a"), 300_000), rig.WriteFile(t, filepath.Join(sub, "b"), 10_000)
	if _, err := v.Snapshot(t.Context(), "good"); err != nil {
		t.Fatal(err)
	}
	rig.WriteFile(t, filepath.Join(v.Mount, "a"), 200_000)
	if err := os.RemoveAll(sub); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Run(t.Context(), "restore", v.Mount, "good", v.Mount, "sub/b"); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(sub, "b"), b)
	if _, err := v.Run(t.Context(), "restore", v.Mount, "good", v.Mount); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.Mount, "a"), a)
}

// TestFullStateDisk: the snapshot fails and says why, the volume works on, and with space there is a snapshot again.
func TestFullStateDisk(t *testing.T) {
	rig.NeedRoot(t)
	disk := rig.Tmpfs(t, "48m")
	v := rig.Mounted(t, volume.Options{State: filepath.Join(disk, "state")})
	if _, err := v.Snapshot(t.Context(), "small"); err != nil {
		t.Fatal(err)
	}
	want := rig.WriteFile(t, filepath.Join(v.Mount, "big"), 96<<20)
	refused(t, v, exitFailed, []string{"space"}, "snapshot", v.Mount, "--name", "too-big")
	rig.WriteFile(t, filepath.Join(v.Mount, "more"), 1<<20)
	rig.SameFile(t, filepath.Join(v.Mount, "big"), want)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=256m"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Snapshot(t.Context(), "with-space"); err != nil {
		t.Fatal("with space on the state disk again:", err)
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("with-space"), "big"), want)
	if _, err := v.Run(t.Context(), "verify", v.Mount, "--read-data"); err != nil {
		t.Error(err)
	}
}

// TestFullBackingDisk: the database gets the backing's error.
func TestFullBackingDisk(t *testing.T) {
	rig.NeedRoot(t)
	disk := rig.Tmpfs(t, "16m")
	dir := t.TempDir()
	v := rig.Mounted(t, volume.Options{Dir: dir, Backing: filepath.Join(disk, "backing"), State: filepath.Join(dir, "state")})
	f, err := os.Create(filepath.Join(v.Mount, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for range 40 {
		if _, err = f.Write(buf); err != nil {
			break
		}
		if err = f.Sync(); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing more than the disk holds: %v, want ENOSPC", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Snapshot(t.Context(), "after"); err != nil {
		t.Error(err)
	}
}

// TestSnapdirName: a real entry named .snapshots keeps its place; another name can be chosen.
func TestSnapdirName(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{Args: []string{"--snapdir", ".past"}})
	if err := os.Mkdir(filepath.Join(v.Backing, ".snapshots"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := rig.WriteFile(t, filepath.Join(v.Backing, ".snapshots", "mine"), 100)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.Mount, ".snapshots", "mine"), want)
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.Mount, ".past", "s", ".snapshots", "mine"), want)
	list, err := os.ReadDir(v.Mount)
	if err != nil || len(list) != 1 {
		t.Errorf("the mount lists %v (%v), want .snapshots alone", list, err)
	}
}

// TestChangedWhileUnmounted: what was changed behind graphvol's back is in the next snapshot.
func TestChangedWhileUnmounted(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	rig.WriteFile(t, filepath.Join(v.Mount, "file"), 1<<20)
	kept := rig.WriteFile(t, filepath.Join(v.Mount, "kept"), 1<<20)
	if _, err := v.Snapshot(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := v.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(v.Backing, "file")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := rig.WriteFile(t, path, 1<<20)
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil { // an mtime that tells nothing
		t.Fatal(err)
	}
	added := rig.WriteFile(t, filepath.Join(v.Backing, "added"), 1000)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Snapshot(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("b"), "file"), changed)
	rig.SameFile(t, filepath.Join(v.SnapshotDir("b"), "added"), added)
	rig.SameFile(t, filepath.Join(v.SnapshotDir("b"), "kept"), kept)
}
