package fs

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// Mappings of the mount are used in a process of their own: a page fault blocks the Go scheduler, which the server needs to answer it.

const helperEnv = "GRAPHVOL_TEST_HELPER"

func TestMain(m *testing.M) {
	what := os.Getenv(helperEnv)
	if what == "" {
		goleak.VerifyTestMain(m) // exits
	}
	if err := map[string]func(string) error{"store": storeToMapping, "coherent": compareMapping}[what](os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func helper(t testing.TB, what, path string) {
	t.Helper()
	c := exec.Command("/proc/self/exe", path)
	c.Env = append(os.Environ(), helperEnv+"="+what)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", what, err, out)
	}
}

// storeToMapping dirties the third page of a file through a mapping.
func storeToMapping(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[8192] = 1
	return unix.Munmap(m)
}

// compareMapping writes by pwrite and through a mapping, and reads each the other way.
func compareMapping(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(64 << 10); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	for i := range 16 {
		f.WriteAt([]byte{byte(i + 1)}, int64(i)*4096)
		if m[i*4096] != byte(i+1) {
			return fmt.Errorf("pwrite isn't seen by the mapping")
		}
		m[i*4096+1] = byte(i + 7)
		if f.ReadAt(b, int64(i)*4096+1); b[0] != byte(i+7) {
			return fmt.Errorf("a store isn't seen by pread")
		}
	}
	return unix.Msync(m, unix.MS_SYNC)
}
