// Package rig is what the tests of the whole share: the built binary, volumes that are unmounted when a test ends,
// filesystems of their own, and the check that nothing is left behind.
package rig

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

var serverRace = flag.Bool("server.race", false, "build the binary under test with the race detector")

// Main is a package's TestMain: it runs the tests and returns the exit code, which isn't 0 either when they leave mounts, processes or files
// behind. The process's umask is 0 from then on, so that modes are what a test says.
func Main(m *testing.M) int {
	flag.Parse()
	unix.Umask(0)
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
	processes := func() []int {
		return append(volume.Processes(filepath.Join(tmp, "bin", "graphvol")), volume.Processes(filepath.Join(tmp, "bin", agentName))...)
	}
	pids := processes()
	for len(pids) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		pids = processes()
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

// Binary builds the binary once a test run and returns its path.
var Binary = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "bin")
	if err := touchSources(); err != nil {
		return "", err
	}
	return volume.Build(context.Background(), dir, buildArgs()...)
})

func buildArgs() []string {
	if *serverRace {
		return []string{"-race"}
	}
	return nil
}

const agentName = "graphvol-agent"

// Agent builds the daemon of a node beside Binary, once a test run, and returns the path of that, which starts it.
var Agent = sync.OnceValues(func() (string, error) {
	bin, err := Binary()
	if err != nil {
		return "", err
	}
	return bin, volume.BuildPackage(context.Background(), filepath.Join(filepath.Dir(bin), agentName), "graphvol/cmd/"+agentName, buildArgs()...)
})

// touchSources looks at the module's Go files: go test remembers results, and knows of a test's dependencies only what the test
// imports or looks at.
func touchSources() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
}
