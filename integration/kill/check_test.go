package kill

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// describe gives a line about everything in a tree that a snapshot must have as the volume has it, apart from what package model compares.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == modelDir {
			return fs.SkipDir
		}
		all[rel], err = describeOne(path)
		return err
	})
	if err != nil {
		t.Fatalf("reading %s: %v", root, err)
	}
	return all
}

func describeOne(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	line := fmt.Sprintf("mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		return fmt.Sprintf("%s links %d bytes %d content %x", line, st.Nlink, n, h.Sum(nil)[:8]), err
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		return line + " to " + to, err
	}
	return line, nil
}

// sameTree fails the test where two trees differ.
func sameTree(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	differ := 0
	for path, line := range want {
		if got[path] != line {
			if differ++; differ < 5 {
				t.Errorf("%s: %s is %q, want %q", what, path, got[path], line)
			}
		}
	}
	for path, line := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %s is too many: %q", what, path, line)
		}
	}
}

// checkVolume is the check that follows every death: no snapshot is half there, all that are complete are whole, and the next one equals the volume
// byte by byte. Nobody may write meanwhile.
func checkVolume(t testing.TB, v *volume.Volume, next string) {
	t.Helper()
	ctx := t.Context()
	all, err := v.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.State == "pending" {
			_, err := v.WaitComplete(ctx, s.Name)
			if err != nil && !errors.Is(err, volume.ErrFailed) {
				t.Errorf("a snapshot that was pending: %v", err)
			}
		}
	}
	if _, err := v.Snapshot(ctx, next); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "snapshot "+next, describe(t, v.SnapshotDir(next)), describe(t, v.Mount))
	if out, err := v.Run(ctx, "verify", v.Mount, "--read-data"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// oneLine fails the test if a command that its server left alone said anything but one line that tells what to do.
func oneLine(t testing.TB, err error, hints ...string) {
	t.Helper()
	if err == nil {
		return
	}
	var exit *volume.ExitError
	if !errors.As(err, &exit) {
		t.Error(err)
		return
	}
	text := strings.TrimSpace(exit.Stderr)
	told := slices.ContainsFunc(hints, func(h string) bool { return strings.Contains(text, h) })
	if exit.Code != 1 || strings.Contains(text, "\n") || !told {
		t.Errorf("exit code %d, and not one line with one of %q: %s", exit.Code, hints, text)
	}
}
