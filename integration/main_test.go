// Package integration tests graphvol as a whole: the built binary, the real kernel, and programs that a DBA runs.
package integration

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

var (
	modelDuration = flag.Duration("model.duration", 0, "run model tests for this long instead of some seconds")
	modelSeed     = flag.Uint64("model.seed", 0, "seed of model tests; 0 chooses one and prints it")
	serverRace    = flag.Bool("server.race", false, "build the binary under test with the race detector")
)

// TestMain fails the package when tests leave mounts, processes or files behind.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(mainRun(m))
}

func mainRun(m *testing.M) int {
	unix.Umask(0) // the model says modes exactly
	tmp, err := os.MkdirTemp("", "graphvol-integration")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(tmp)
	os.Setenv("TMPDIR", tmp) // t.TempDir and os.CreateTemp go below
	code := m.Run()
	for _, left := range leftovers(tmp) {
		fmt.Println("FAIL: left behind:", left)
		code = max(code, 1)
	}
	return code
}

func leftovers(tmp string) []string {
	var left []string
	for _, mnt := range volume.Mounts() {
		if rel, err := filepath.Rel(tmp, mnt); err == nil && filepath.IsLocal(rel) {
			left = append(left, "mount "+mnt)
			unix.Unmount(mnt, unix.MNT_DETACH)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	pids := volume.Processes(filepath.Join(tmp, "bin", "graphvol"))
	for len(pids) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		pids = volume.Processes(filepath.Join(tmp, "bin", "graphvol"))
	}
	for _, pid := range pids {
		left = append(left, fmt.Sprintf("process %d", pid))
		unix.Kill(pid, unix.SIGKILL)
	}
	entries, _ := os.ReadDir(tmp)
	for _, e := range entries {
		if e.Name() != "bin" {
			left = append(left, "file "+filepath.Join(tmp, e.Name()))
		}
	}
	return left
}

// built builds the binary once a test run.
var built = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "bin")
	var args []string
	if *serverRace {
		args = append(args, "-race")
	}
	if err := touchSources(".."); err != nil {
		return "", err
	}
	return volume.Build(context.Background(), dir, args...)
})

// touchSources looks at the module's Go files: go test remembers results, and knows of a test's dependencies only what the test
// imports or looks at.
func touchSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
}

// newVolume makes a volume below t.TempDir(), not mounted yet; it is unmounted when the test ends, and its log is
// shown when the test failed.
func newVolume(t *testing.T, o volume.Options) *volume.Volume {
	t.Helper()
	needFUSE(t)
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	o.Bin = bin
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
	})
	return v
}

// mounted is newVolume, mounted.
func mounted(t *testing.T, o volume.Options) *volume.Volume {
	t.Helper()
	v := newVolume(t, o)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

func needFUSE(t *testing.T) {
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
func showLogs(t *testing.T, v *volume.Volume) {
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

func isExt4(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && slices.Contains([]int64{unix.EXT4_SUPER_MAGIC}, int64(st.Type))
}
