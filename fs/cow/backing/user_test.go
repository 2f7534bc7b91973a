package backing

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const asUser = "GRAPHVOL_TEST_AS_USER"

// TestAsUnprivilegedServer runs this package's tests once more, as a server without root's rights.
func TestAsUnprivilegedServer(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin, tmp := dir+"/backing.test", dir+"/tmp"
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Mkdir(tmp, 0o700)
	os.Chown(tmp, 65534, 65534)
	c := exec.Command(bin, "-test.run", "Test", "-test.short")
	c.Dir = tmp
	c.Env = append(os.Environ(), "TMPDIR="+tmp, asUser+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestModesThatForbidTheOwner: a file whose mode forbids it to its owner, open since before, stays usable after its descriptor was dropped.
func TestModesThatForbidTheOwner(t *testing.T) {
	if os.Getenv(asUser) == "" {
		t.Skip("only without root's rights")
	}
	f := open(t, func(c *Config) { c.MaxFD = 1 })
	a := f.must(f.Create(me, f.Root(), "a", 0, 0))
	f.check(f.OpenFile(a.Ino, true), nil)
	for _, name := range []string{"b", "c", "d"} {
		f.must(f.Create(me, f.Root(), name, 0, 0o600))
	}
	if n, err := f.WriteAt(a.Ino, []byte("data"), 0); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	f.Close()
	f.reopen(func(c *Config) { c.Takeover = true })
	buf := make([]byte, 4)
	if n, err := f.ReadAt(a.Ino, buf, 0); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if got := f.must(f.Stat(a.Ino)); got.Mode&0o7777 != 0 {
		t.Fatalf("mode %o", got.Mode)
	}
	w := f.must(f.Create(me, f.Root(), "w", 0, 0o200))
	f.check(f.OpenFile(w.Ino, true), nil)
	f.check(f.Fsync(w.Ino, true), nil)
	// What belongs to somebody else stays forbidden.
	if unix.Geteuid() != 65534 {
		t.Fatal("runs as", unix.Geteuid())
	}
}
