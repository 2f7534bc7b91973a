package fusedev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFuseDevice(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "fuse")
	check := func(want string) {
		t.Helper()
		if err := Check(missing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	check("modprobe fuse")
	if err := os.WriteFile(missing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("is not the FUSE device")
	if os.Geteuid() != 0 {
		if err := os.Chmod(missing, 0); err != nil {
			t.Fatal(err)
		}
		check("chmod 666")
		return
	}
	if err := os.Remove(missing); err != nil {
		t.Fatal(err)
	}
	// No driver has this number.
	if err := unix.Mknod(missing, unix.S_IFCHR|0o600, int(unix.Mkdev(240, 12345))); err != nil {
		t.Skip(err)
	}
	check("/fuse ")
}
