package index

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envDying makes the test binary open an index as a server, and then be what a killed one is that waits for its own mount: without descriptors, but with its
// memory.
const envDying = "INDEX_TEST_DYING"

// TestMain also fails when goroutines outlive the tests.
func TestMain(m *testing.M) {
	path := os.Getenv(envDying)
	if path == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if _, err := Open(path, Options{}); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("open\n")
	bufio.NewReader(os.Stdin).ReadString('\n')
	closeFiles(filepath.Dir(path))
	os.Stdout.WriteString("dying\n")
	for {
		unix.Pause()
	}
}

// closeFiles closes the files below dir. The runtime needs its own descriptors.
func closeFiles(dir string) {
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if fd, err := strconv.Atoi(e.Name()); err == nil && strings.HasPrefix(to, dir) {
			unix.Close(fd)
		}
	}
}

// TestLockOfTheDying: a server that can't end keeps its successor out no longer than its descriptors are open.
func TestLockOfTheDying(t *testing.T) {
	path := testPath(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envDying+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	says := bufio.NewReader(out)
	expect := func(want string) {
		t.Helper()
		if line, err := says.ReadString('\n'); line != want+"\n" {
			t.Fatalf("the process says %q (%v), want %q", line, err, want)
		}
	}
	expect("open")
	if db, err := Open(path, Options{Timeout: 20 * time.Millisecond}); err == nil {
		db.Close()
		t.Fatal("the index is open twice")
	}
	in.Write([]byte("\n"))
	expect("dying")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
