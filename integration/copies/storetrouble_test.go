package copies

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestStoreOutage: while the server is away, what was read can be read again, the rest is an I/O error, and the log has one line of it. When it is back, so is everything.
func TestStoreOutage(t *testing.T) {
	srv := s3test.Start(t)
	u := newUser(t, volume.Options{Args: []string{"--target", srv.URL("graph")}})
	rig.WriteFile(t, filepath.Join(u.Mount, "x"), 2<<20)
	u.snapshot("a")
	rig.WriteFile(t, filepath.Join(u.Mount, "y"), 12<<20) // more than what is read ahead
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait")
	s := u.store(srv.URL("graph"), "--key", u.recovery())
	read := func(name string) error {
		f, err := os.Open(filepath.Join(s.dir, "b", name))
		if err != nil {
			return err
		}
		defer f.Close()
		u.must(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)) // nor has the kernel it
		got := make([]byte, len(u.want["b"][name]))
		if _, err := f.ReadAt(got, 0); err != nil {
			return err
		}
		if string(got) != u.want["b"][name] {
			t.Errorf("%s isn't what it was", name)
		}
		return nil
	}
	u.must(read("x"))
	srv.Stop()
	u.must(read("x"))
	for range 2 {
		if err := read("y"); !isErrno(err, unix.EIO) {
			t.Errorf("reading what isn't there: %v", err)
		}
	}
	if got := s.names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("it shows %v", got)
	}
	if out := u.run("status", s.dir); !strings.Contains(out, "can't be read") || !strings.Contains(out, srv.Addr) {
		t.Errorf("status: %s", out)
	}
	if n := strings.Count(s.log(), "the copy can't be read"); n != 1 {
		t.Errorf("%d lines about it in the log:\n%s", n, s.log())
	}
	u.must(srv.Restart(t.Context()))
	u.must(read("y"))
	u.snapshot("c")
	u.run("sync", u.Mount, "--wait")
	s.right()
	if log := s.log(); !strings.Contains(log, "the copy is back") || strings.Contains(log, "graphvol verify") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestStoreSpreadOutage: with more targets away than may be, some requests succeed and some don't; the log has one line of it all the same.
func TestStoreSpreadOutage(t *testing.T) {
	one, two := s3test.Start(t), s3test.Start(t)
	urls := []string{one.URL("a"), one.URL("b"), two.URL("c")}
	args := []string{"--erasure", "2+1"}
	for _, url := range urls {
		args = append(args, "--target", url)
	}
	u := newUser(t, volume.Options{Args: args})
	rig.WriteFile(t, filepath.Join(u.Mount, "large"), 12<<20) // more than what is read ahead
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	s := u.store(append(urls, "--erasure", "2+1", "--key", u.recovery())...)
	s.names()
	one.Stop()
	for range 2 {
		if _, err := os.ReadFile(filepath.Join(s.dir, "a", "large")); !isErrno(err, unix.EIO) {
			t.Errorf("reading with two of three targets away: %v", err)
		}
		s.names()
	}
	if n := strings.Count(s.log(), "the copy can't be read"); n != 1 {
		t.Errorf("%d lines about it in the log:\n%s", n, s.log())
	}
	u.must(one.Restart(t.Context()))
	s.right()
}

// TestStoreCache: what was read once is read from the cache by the next mount, without a look at the packs; and the cache stays within its bound.
func TestStoreCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", "dir:" + dir}})
	rig.WriteFile(t, filepath.Join(u.Mount, "large"), 12<<20)
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	s := u.store("dir:" + dir)
	s.right()
	s.umount()
	u.must(filepath.WalkDir(filepath.Join(dir, "packs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		u.must(err)
		return os.WriteFile(path, make([]byte, st.Size()), 0o600)
	}))
	s.mount()
	s.right()
	s.umount()

	const bound = 4 << 20
	s.args = append(s.args, "--cache-size", "4M")
	s.mount()
	if n := s.blockBytes(); n > bound {
		t.Errorf("%d bytes in the cache, which may have %d", n, bound)
	}
	if _, err := os.ReadFile(filepath.Join(s.dir, "a", "large")); !isErrno(err, unix.EIO) {
		t.Errorf("reading what was thrown away and is damaged: %v", err)
	}
}

// TestStoreRolledBack: an older head than was seen isn't believed, now or at the next mount.
func TestStoreRolledBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", "dir:" + dir}})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait")
	s := u.store("dir:" + dir)
	heads, err := filepath.Glob(filepath.Join(dir, "heads", "*"))
	if err != nil || len(heads) != 2 {
		t.Fatal(heads, err)
	}
	u.must(os.Remove(heads[1]))
	s.right()
	s.right()
	if n := strings.Count(s.log(), "rolled back"); n != 1 {
		t.Errorf("%d lines about it:\n%s", n, s.log())
	}
	s.umount()
	u.refused([]string{"rolled back", "--cache-dir"}, append([]string{"mount-store"}, s.args...)...)
}

// TestStoreDamaged: a pack that is missing is an I/O error for what was in it, and a line in the log.
func TestStoreDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", "dir:" + dir}})
	rig.WriteFile(t, filepath.Join(u.Mount, "large"), 40<<20) // more than a pack
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	s := u.store("dir:" + dir)
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*", "*"))
	if err != nil || len(packs) < 2 {
		t.Fatal(packs, err)
	}
	for _, p := range packs {
		st, err := os.Stat(p)
		u.must(err)
		if st.Size() > 20<<20 { // the tree is in the other
			u.must(os.Rename(p, p+".away"))
		}
	}
	if _, err := os.ReadFile(filepath.Join(s.dir, "a", "large")); !isErrno(err, unix.EIO) {
		t.Errorf("reading what is missing: %v", err)
	}
	if log := s.log(); !strings.Contains(log, "the pack is missing") || !strings.Contains(log, "/large") {
		t.Errorf("the log:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "a", "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that isn't there: %v", err)
	}
}

func (s *store) blockBytes() (n int64) {
	for _, path := range s.glob("blocks/*") {
		st, err := os.Stat(path)
		s.u.must(err)
		n += st.Size()
	}
	return n
}

// TestStoreKilled: a store whose server was killed is mounted again in place of the dead mount; SIGTERM unmounts.
func TestStoreKilled(t *testing.T) {
	url := "dir:" + filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", url}})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	s := u.store(url)
	for range 3 {
		u.must(unix.Kill(s.pid, unix.SIGKILL))
		u.until("the end of the server", func() bool { return !alive(s.pid) })
		u.until("the death of the mount", func() bool {
			_, err := os.ReadDir(s.dir)
			return isErrno(err, unix.ENOTCONN)
		})
		u.refused([]string{"died", "umount " + s.dir}, "snapshots", s.dir)
		s.mount()
		s.right()
	}
	u.must(unix.Kill(s.pid, unix.SIGTERM))
	u.until("the end of the server", func() bool { return !alive(s.pid) })
	if volume.Mounted(s.dir) {
		t.Error("SIGTERM hasn't unmounted it")
	}
	s.mount()
	f, err := os.Open(filepath.Join(s.dir, "a", "data"))
	u.must(err)
	defer f.Close()
	u.refused([]string{"busy"}, "umount", s.dir)
	u.must(unix.Kill(s.pid, unix.SIGTERM))
	u.until("the end of the server", func() bool { return !alive(s.pid) })
	if volume.Mounted(s.dir) {
		t.Error("SIGTERM hasn't detached it")
	}
	s.mount()
	if out, err := exec.Command("umount", s.dir).CombinedOutput(); err != nil {
		t.Errorf("umount(8): %v: %s", err, out)
	}
	u.until("the end of the server", func() bool { return !alive(s.pid) })
}

// TestStoreRefused: what can't be is one clear line, and nothing is mounted or left behind.
func TestStoreRefused(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	u := newUser(t, volume.Options{Args: []string{"--target", "dir:" + at("copy"), "--target", "dir:" + at("secret"), "--encrypt", "auto"}})
	other := newUser(t, volume.Options{Args: []string{"--target", "dir:" + at("other"), "--encrypt", "yes"}})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	other.snapshot("a")
	other.run("sync", other.Mount, "--wait")
	for _, dir := range []string{"empty", "full/x", "nothing"} {
		u.must(os.MkdirAll(at(dir), 0o755))
	}
	u.must(os.WriteFile(at("file"), []byte("no key"), 0o600))
	u.must(os.Mkdir(at("forged"), 0o755))
	u.must(os.WriteFile(at("forged/store.json"), []byte(`{"format_version": 1, "store": "..", "volume": "x"}`), 0o600))
	key := other.recovery()
	s := u.store("dir:" + at("copy"))
	copyURL := "dir:" + at("copy")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{copyURL, at("full")}, []string{"not empty"}},
		{[]string{copyURL, at("file")}, []string{"not a directory"}},
		{[]string{copyURL, at("none")}, []string{"does not exist"}},
		{[]string{copyURL, s.dir}, []string{"mounted at", "already", "umount"}},
		{[]string{copyURL, u.Mount}, []string{"mounted at", "already", "umount"}},
		{[]string{copyURL, at("empty"), "--cache-dir", s.cache}, []string{s.dir, "--cache-dir"}},
		{[]string{copyURL, at("empty"), "--cache-dir", at("empty")}, []string{"inside the mount point", "--cache-dir"}},
		{[]string{copyURL, at("empty"), "--cache-dir", at("file")}, []string{"cache directory", "--cache-dir"}},
		{[]string{copyURL, at("empty"), "--key", at("none")}, []string{at("none"), "check the path"}},
		{[]string{copyURL, at("empty"), "--key", at("file")}, []string{at("file")}},
		{[]string{copyURL, at("empty"), "--key", key}, []string{"isn't encrypted", "name no key"}},
		{[]string{"dir:" + at("other"), at("empty")}, []string{"encrypted", "--key"}},
		{[]string{"dir:" + at("nothing"), at("empty")}, []string{"no store.json"}},
		{[]string{"dir:" + at("forged"), at("empty")}, []string{"store.json can't be understood"}}, // its id would be a directory's name
		{[]string{"dir:" + at("typo"), at("empty")}, []string{at("typo"), "correct the path"}},
		{[]string{"dir:" + at("typo/deep"), at("empty")}, []string{at("typo"), "correct the path"}},
	} {
		if !slices.Contains(c.args, "--cache-dir") {
			c.args = append(c.args, "--cache-dir", at("cache"))
		}
		u.refused(c.want, append([]string{"mount-store"}, c.args...)...)
	}
	for _, name := range []string{"typo", "cache", "empty/x", "nothing/.tmp"} {
		if _, err := os.Stat(at(name)); err == nil && name != "cache" {
			t.Errorf("%s was made", at(name))
		}
	}
	if volume.Mounted(at("empty")) {
		t.Error("it is mounted")
	}
}
