package backing

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func (f *fixture) written(name string) uint64 {
	f.t.Helper()
	a := f.must(f.Create(me, f.Root(), name, unix.O_RDWR, 0o644))
	f.check(f.OpenFile(a.Ino, true), nil)
	if _, err := f.WriteAt(a.Ino, []byte("log"), 0); err != nil {
		f.t.Fatal(err)
	}
	return a.Ino
}

// TestStartSyncIsBounded: what isn't waited for counts, what was waited for doesn't, and waiting again is allowed.
func TestStartSyncIsBounded(t *testing.T) {
	f := open(t, nil)
	ino := f.written("f")
	var waits []func() error
	for range maxSyncs {
		wait, err := f.StartSync(ino)
		f.check(err, nil)
		waits = append(waits, wait)
	}
	_, err := f.StartSync(ino)
	f.check(err, errSyncs)
	for range 2 {
		f.check(waits[0](), nil)
	}
	last, err := f.StartSync(ino)
	f.check(err, nil)
	_, err = f.StartSync(ino)
	f.check(err, errSyncs)
	f.check(f.Close(), nil)
	for _, wait := range append(waits, last) {
		f.check(wait(), nil)
	}
	if n := len(f.syncs.mu.idle); n != 0 {
		t.Errorf("%d contexts are left after Close", n)
	}
}

// TestStartSyncTellsErrors: a filesystem that was shut down can't write the pages that it has.
func TestStartSyncTellsErrors(t *testing.T) {
	needRoot(t)
	img := t.TempDir() + "/ext4"
	run := func(name string, args ...string) {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v %s", name, err, out)
		}
	}
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run("truncate", "-s", "16M", img)
	run("mkfs.ext4", "-q", img)
	dir := t.TempDir()
	run("mount", "-o", "loop", img, dir)
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f := &fixture{t: t, dir: dir, state: t.TempDir()}
	f.reopen(nil)
	defer f.Close()
	ino := f.written("f")
	root, err := os.Open(dir)
	f.check(err, nil)
	defer root.Close()
	const shutdown, noLogFlush = 0x8004587d, 2
	f.check(unix.IoctlSetPointerInt(int(root.Fd()), shutdown, noLogFlush), nil)
	wait, err := f.StartSync(ino)
	f.check(err, nil)
	f.check(wait(), syscall.EIO)
}
