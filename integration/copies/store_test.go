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
		for _, path := range s.glob("log/stderr.log") {
			if p, err := os.ReadFile(path); err != nil || len(p) > 0 {
				u.t.Errorf("the server said on standard error: %s, %v", p, err)
			}
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

func isErrno(err error, want unix.Errno) bool { return errors.Is(err, want) }
