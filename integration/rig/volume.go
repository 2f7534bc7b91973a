package rig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// NewVolume makes a volume below t.TempDir(), not mounted yet; it is unmounted when the test ends, and its log is
// shown when the test failed. The backing is synced as soon as a snapshot is stored, unless o.Args say otherwise. The test fails if one of the
// volume's processes crashed or the race detector reported something.
func NewVolume(t testing.TB, o volume.Options) *volume.Volume {
	t.Helper()
	NeedFUSE(t)
	bin, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	o.Bin = bin
	o.Args = append([]string{"--settle-after", "0s"}, o.Args...) // by default a test would be over before
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	v, err := volume.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, v)
		}
		if err := v.Close(); err != nil {
			t.Errorf("unmounting at the end: %v", err)
		}
		if report := TakeStderr(v); report != "" {
			t.Errorf("the server or its holder said on standard error:\n%s", report)
		}
	})
	return v
}

// TakeStderr gives what the volume's processes have written to standard error, and empties that file: what the race detector and the
// runtime say of a fault. Lines of the log, which go there while the state's disk is full or broken, are left out, and those with which
// a process says why it can't mount. A test that
// makes a process crash takes its report, so that it isn't held against it in the end.
func TakeStderr(v *volume.Volume) string {
	path := filepath.Join(v.StateDir(), "log", "stderr.log")
	raw, err := os.ReadFile(path)
	if err != nil {
		return "" // no state, or its disk is gone
	}
	var report strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, `{"time":`) && !strings.HasPrefix(line, "graphvol: ") {
			report.WriteString(line)
		}
	}
	os.Truncate(path, 0)
	return report.String()
}

// Mounted is NewVolume, mounted.
func Mounted(t testing.TB, o volume.Options) *volume.Volume {
	t.Helper()
	v := NewVolume(t, o)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

// NeedFUSE skips the test where nothing can be mounted.
func NeedFUSE(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a mount; -short is set")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("needs FUSE: %v", err)
	} else {
		f.Close()
	}
}

// showLogs prints the last lines of the volume's logs.
func showLogs(t testing.TB, v *volume.Volume) {
	logs, _ := filepath.Glob(filepath.Join(v.StateDir(), "log", "*"))
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const most = 8 << 10
		t.Logf("%s:\n%s", path, raw[max(0, len(raw)-most):])
	}
}

// IsExt4 tells whether dir lies on ext4.
func IsExt4(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// NeedRoot skips the test of a user who isn't root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
