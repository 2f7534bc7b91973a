package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// refused runs a command that must fail with the code, and say all the words in one line without a trace of the program's
// inside.
func refused(t *testing.T, v *volume.Volume, code int, words []string, args ...string) {
	t.Helper()
	_, err := v.Run(t.Context(), args...)
	var exit *volume.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("graphvol %q: %v, want exit code %d", args, err, code)
		return
	}
	if exit.Code != code {
		t.Errorf("graphvol %q: exit code %d, want %d: %s", args, exit.Code, code, exit.Stderr)
	}
	text := strings.TrimSpace(exit.Stderr)
	if text == "" || strings.Count(text, "\n") > 0 {
		t.Errorf("graphvol %q: want one line on standard error, got %q", args, exit.Stderr)
	}
	for _, bad := range []string{"panic", "goroutine", ".go:", "rpc error", "%!"} {
		if strings.Contains(text, bad) {
			t.Errorf("graphvol %q: standard error shows %q: %s", args, bad, text)
		}
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("graphvol %q: standard error lacks %q: %s", args, w, text)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	for _, args := range [][]string{
		{"mount"}, {"mount", v.Backing}, {"mount", v.Backing, v.Mount, "more"}, {"mount", v.Backing, v.Mount, "--cache", "sideways"},
		{"umount"}, {"snapshot"}, {"snapshots"}, {"snapshot", v.Mount, "--no-such-flag"}, {"restore", v.Mount}, {"diff", v.Mount, "a"},
		{"delete", v.Mount}, {"no-such-command"},
	} {
		refused(t, v, exitUsage, nil, args...)
	}
}

func TestWrongPaths(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	missing := filepath.Join(v.Dir, "missing")
	file := filepath.Join(v.Dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, v, exitFailed, []string{missing}, "mount", missing, v.Mount)
	refused(t, v, exitFailed, []string{file}, "mount", file, v.Mount)
	refused(t, v, exitFailed, []string{missing}, "mount", v.Backing, missing)
	refused(t, v, exitFailed, []string{file}, "mount", v.Backing, file)
	for _, cmd := range []string{"snapshot", "snapshots", "dirty", "prune", "verify", "status"} {
		refused(t, v, exitFailed, []string{missing}, cmd, missing)
		refused(t, v, exitFailed, []string{v.Mount}, cmd, v.Mount)
	}
	refused(t, v, exitFailed, []string{v.Mount}, "umount", v.Mount)
	refused(t, v, exitFailed, []string{missing}, "umount", missing)
}

func TestMountedTwice(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	other := filepath.Join(v.Dir, "other")
	elsewhere := filepath.Join(v.Dir, "elsewhere")
	for _, dir := range []string{other, elsewhere} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, v, exitFailed, []string{v.Mount}, "mount", v.Backing, elsewhere)
	refused(t, v, exitFailed, []string{v.Mount}, "mount", other, v.Mount)
	refused(t, v, exitFailed, []string{v.Mount}, "mount", other, elsewhere, "--state", v.StateDir())
}

func TestMissingSnapshots(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	if _, err := v.Snapshot(t.Context(), "before-upgrade"); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(v.Dir, "dest")
	near := []string{"befor-upgrade", "before-upgrade"}
	refused(t, v, exitFailed, near, "restore", v.Mount, "befor-upgrade", dest)
	refused(t, v, exitFailed, near, "delete", v.Mount, "befor-upgrade")
	refused(t, v, exitFailed, near, "verify", v.Mount, "befor-upgrade")
	refused(t, v, exitFailed, near, "diff", v.Mount, "befor-upgrade", "latest")
	if exists(dest) {
		t.Error("a restore that was refused has made its destination")
	}
	if _, err := os.Lstat(v.SnapshotDir("befor-upgrade")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lstat of a snapshot that doesn't exist: %v", err)
	}
	if _, err := v.Run(t.Context(), "verify", v.Mount, "before-u"); err != nil {
		t.Errorf("a unique prefix of a name: %v", err)
	}
}

func TestSnapshotNames(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	for _, name := range []string{"with space", "grün", "-dash", "ends-in.", "100%", strings.Repeat("n", 64)} {
		if _, err := v.Snapshot(t.Context(), name); err != nil {
			var exit *volume.ExitError
			if !errors.As(err, &exit) || strings.Count(strings.TrimSpace(exit.Stderr), "\n") > 0 {
				t.Errorf("name %q: neither taken nor refused in one line: %v", name, err)
			}
		} else if !exists(v.SnapshotDir(name)) {
			t.Errorf("snapshot %q can't be browsed", name)
		}
	}
	for _, name := range []string{"a/b", "..", ".", "new\nline", strings.Repeat("n", 300), "latest"} {
		if _, err := v.Snapshot(t.Context(), name); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
	if _, err := v.Snapshot(t.Context(), "twice"); err != nil {
		t.Fatal(err)
	}
	refused(t, v, exitFailed, []string{"twice"}, "snapshot", v.Mount, "--name", "twice")
}

func TestBusyUnmount(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	f, err := os.Create(filepath.Join(v.Mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused(t, v, exitFailed, []string{v.Mount}, "umount", v.Mount)
	if _, err := f.WriteString("still works"); err != nil {
		t.Error("after a refused unmount:", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Umount(t.Context()); err != nil {
		t.Error("when the file is closed:", err)
	}
}

// TestStaleMount: server and holder are dead; the volume's own commands get out of it.
func TestStaleMount(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	if err := os.WriteFile(filepath.Join(v.Mount, "kept"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fsyncFile(filepath.Join(v.Mount, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := v.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, v, exitFailed, nil, "snapshot", v.Mount)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal("mounting over a stale mount:", err)
	}
	if got, err := os.ReadFile(filepath.Join(v.Mount, "kept")); err != nil || string(got) != "kept" {
		t.Errorf("after a stale mount: %q, %v", got, err)
	}
	if err := v.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.Umount(t.Context()); err != nil {
		t.Error("unmounting a stale mount:", err)
	}
}

func fsyncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// TestForeignMount: graphvol unmounts nothing but its own.
func TestForeignMount(t *testing.T) {
	rig.NeedRoot(t)
	v := rig.NewVolume(t, volume.Options{})
	dir := rig.Tmpfs(t, "1m")
	refused(t, v, exitFailed, []string{dir}, "umount", dir)
	if !volume.Mounted(dir) {
		t.Error("the foreign mount is gone")
	}
	refused(t, v, exitFailed, []string{dir}, "snapshot", dir)
}
