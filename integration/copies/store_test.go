package copies

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/model"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// marker is in the content of a file, and nowhere on disk where it is encrypted.
const marker = "this is what nobody must find "

// store is a mounted copy.
type store struct {
	u          *user
	args       []string // what it is mounted with
	dir, cache string
	pid        int
}

// store mounts a copy. It looks for new snapshots whenever it is asked.
func (u *user) store(args ...string) *store {
	u.t.Helper()
	s := &store{u: u, dir: filepath.Join(u.t.TempDir(), "store"), cache: filepath.Join(u.t.TempDir(), "cache")}
	u.must(os.Mkdir(s.dir, 0o755))
	s.args = append(slices.Clone(args), s.dir, "--cache-dir", s.cache, "--refresh", "0s", "--json")
	u.t.Cleanup(func() {
		if u.t.Failed() {
			u.t.Log(s.log())
		}
		if _, err := u.Run(context.Background(), "umount", s.dir); err != nil && volume.Mounted(s.dir) {
			u.t.Error(err)
		}
	})
	s.mount()
	return s
}

func (s *store) mount() {
	s.u.t.Helper()
	var row struct {
		PID   int    `json:"server_pid"`
		Cache string `json:"cache"`
		Mount string `json:"mount"`
	}
	s.u.must(json.Unmarshal([]byte(s.u.run(append([]string{"mount-store"}, s.args...)...)), &row))
	if row.Mount != s.dir || !volume.Mounted(s.dir) || filepath.Dir(row.Cache) != s.cache {
		s.u.t.Fatalf("%+v", row)
	}
	s.pid = row.PID
}

func (s *store) umount() {
	s.u.t.Helper()
	s.u.run("umount", s.dir)
	if volume.Mounted(s.dir) || alive(s.pid) {
		s.u.t.Error("the store is still mounted, or its server runs")
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// until waits for a condition.
func (u *user) until(what string, ok func() bool) {
	u.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("it took too long: %s", what)
		}
	}
}

func (s *store) glob(pattern string) []string {
	list, err := filepath.Glob(filepath.Join(s.cache, "*", pattern))
	s.u.must(err)
	return list
}

func (s *store) log() string {
	var all strings.Builder
	for _, path := range s.glob("log/*") {
		p, err := os.ReadFile(path)
		s.u.must(err)
		all.Write(p)
	}
	return all.String()
}

// names lists the snapshots that are shown.
func (s *store) names() (names []string) {
	s.u.t.Helper()
	list, err := os.ReadDir(s.dir)
	s.u.must(err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// right compares all snapshots with what they must hold.
func (s *store) right() {
	s.u.t.Helper()
	var want []string
	for name := range s.u.want {
		want = append(want, name)
	}
	slices.Sort(want)
	if got := s.names(); !slices.Equal(got, want) {
		s.u.t.Errorf("it shows %v, want %v", got, want)
	}
	for name, want := range s.u.want {
		same(s.u.t, name, content(s.u.t, filepath.Join(s.dir, name)), want)
	}
}

// recovery gives the file of the recovery text of the only copy.
func (u *user) recovery() string {
	u.t.Helper()
	path := filepath.Join(u.t.TempDir(), "recovery")
	u.must(os.WriteFile(path, []byte(u.run("key", "recovery", u.Mount)), 0o600))
	return path
}

// TestStore: with nothing but a copy and its key, all snapshots are directories, which commands take for a volume that is only read. What the volume does meanwhile shows.
func TestStore(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			url := k.url(t)
			u := newUser(t, volume.Options{Args: k.args(url)})
			u.must(os.WriteFile(filepath.Join(u.Mount, "marked"), bytes.Repeat([]byte(marker), 10_000), 0o644))
			u.snapshot("a")
			u.snapshot("b")
			u.run("sync", u.Mount, "--wait")
			args := []string{url}
			if k.encrypt {
				u.refused([]string{"encrypted", "--key"}, "mount-store", url, t.TempDir())
				args = append(args, "--key", u.recovery())
			}
			s := u.store(args...)
			s.right()
			s.commands()
			s.goesOn()
			s.umount()
			s.clean(k.encrypt)
			s.mount()
			s.right()
		})
	}
}

// commands tries those that read, and those that don't.
func (s *store) commands() {
	u := s.u
	u.t.Helper()
	u.restored(s.dir)
	u.run("verify", s.dir, "--read-data")
	if out := u.run("snapshots", s.dir); !strings.Contains(out, "\na ") || !strings.Contains(out, "\nb ") {
		u.t.Errorf("snapshots: %s", out)
	}
	if out := u.run("diff", s.dir, "a", "b"); !strings.Contains(out, "file2") {
		u.t.Errorf("diff: %s", out)
	}
	if out := u.run("status", s.dir); !strings.Contains(out, "a mounted copy of a store") || !strings.Contains(out, "2 snapshots") {
		u.t.Errorf("status: %s", out)
	}
	for _, c := range []string{"snapshot", "delete a", "forget --keep-last 1", "keep a", "release a", "prune", "sync", "dirty", "upgrade", "rebuild"} {
		words := strings.Fields(c)
		u.refused([]string{s.dir}, append([]string{words[0], s.dir}, words[1:]...)...)
	}
	u.refused([]string{s.dir, "key"}, "key", "list", s.dir)
	if err := os.WriteFile(filepath.Join(s.dir, "a", "new"), nil, 0o644); !isErrno(err, unix.EROFS) {
		u.t.Errorf("writing: %v", err)
	}
}

// goesOn takes and deletes snapshots of the volume.
func (s *store) goesOn() {
	u := s.u
	u.t.Helper()
	open, err := os.Open(filepath.Join(s.dir, "b", "data"))
	u.must(err)
	defer open.Close()
	u.must(unix.Fadvise(int(open.Fd()), 0, 0, unix.FADV_DONTNEED))
	want := u.want["b"]["data"]
	u.snapshot("c")
	u.run("delete", u.Mount, "b")
	delete(u.want, "b")
	u.run("prune", u.Mount)
	u.run("sync", u.Mount, "--wait")
	s.right() // who lists them sees those that are there
	got := make([]byte, len(want))
	if _, err := open.ReadAt(got, 0); err != nil || string(got) != want {
		u.t.Errorf("an open file of a snapshot that was deleted: %v", err)
	}
	u.snapshot("d")
	u.run("sync", u.Mount, "--wait")
	if _, err := os.Stat(filepath.Join(s.dir, "d")); err != nil { // who asks for one that isn't known finds it
		u.t.Error(err)
	}
	u.run("verify", s.dir)
}

// clean looks into what is left on disk.
func (s *store) clean(encrypted bool) {
	u := s.u
	u.t.Helper()
	blocks := len(s.glob("blocks/*"))
	if blocks == 0 {
		u.t.Error("nothing was kept")
	}
	u.must(filepath.WalkDir(s.cache, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if st, err := e.Info(); err != nil || path != s.cache && st.Mode().Perm()&0o077 != 0 && e.IsDir() {
			u.t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
		if !e.Type().IsRegular() || !encrypted {
			return nil
		}
		p, err := os.ReadFile(path)
		if bytes.Contains(p, []byte(marker)) || bytes.Contains(p, []byte("AGE-SECRET-KEY")) || bytes.Contains(bytes.ToLower(p), []byte("graphvol recovery")) {
			u.t.Errorf("%s has what must be a secret", path)
		}
		return err
	}))
}

// TestStoreTree: a snapshot, and what cp -a makes of it, is in all that a filesystem can tell what the volume was.
func TestStoreTree(t *testing.T) {
	rig.NeedRoot(t)
	url := "dir:" + filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", url}})
	seed := u.rng.Uint64()
	r, err := model.New(u.Mount, seed, 4)
	u.must(err)
	defer r.CloseFiles()
	trees := map[string]*model.Tree{}
	for _, name := range []string{"one", "two", "three"} {
		if err := r.Round(300); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		u.must(r.SyncAll())
		if trees[name], err = r.Observe(); err != nil {
			t.Fatal(err)
		}
		u.run("snapshot", u.Mount, "--name", name)
	}
	u.run("sync", u.Mount, "--wait")
	s := u.store(url)
	for name, tree := range trees {
		if err := tree.Compare(filepath.Join(s.dir, name), model.Options{MtimeSlack: 20 * time.Millisecond}); err != nil {
			t.Errorf("seed %d, %s: %v", seed, name, err)
		}
		dest := filepath.Join(t.TempDir(), "copied")
		if out, err := exec.Command("cp", "-a", filepath.Join(s.dir, name), dest).CombinedOutput(); err != nil {
			t.Fatalf("cp -a: %v: %s", err, out)
		}
		if err := tree.Compare(dest, model.Options{MtimeSlack: 20 * time.Millisecond}); err != nil {
			t.Errorf("seed %d, the copy of %s: %v", seed, name, err)
		}
	}
}

// TestStoreSpread: one of three targets may be away, and a second one for a while.
func TestStoreSpread(t *testing.T) {
	d := newDisks(t, 3)
	u := newUser(t, volume.Options{Args: d.mountArgs("2+1")})
	u.snapshot("a")
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait")
	key := u.recovery()
	u.take(d, 1)
	s := u.store(append(d.urls(), "--erasure", "2+1", "--key", key)...)
	s.right()
	u.run("verify", s.dir, "--read-data")
	u.refused([]string{"part of a copy", "--erasure"}, "mount-store", d.urls()[0], t.TempDir())
	u.bring(d, 1)
	u.snapshot("c")
	u.run("sync", u.Mount, "--wait")
	u.take(d, 0)
	s.right()
	s.umount()
	u.must(os.RemoveAll(s.cache))
	u.take(d, 2)
	u.refused([]string{"disk"}, append([]string{"mount-store"}, s.args...)...)
	u.bring(d, 0, 2)
	s.mount()
	s.right()
}

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
	for range 3 {
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

func isErrno(err error, want unix.Errno) bool { return errors.Is(err, want) }
