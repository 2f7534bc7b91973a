package copies

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"graphvol/integration/volume"
)

// disks are directories that stand for disks, on which a copy is spread.
type disks []string

func newDisks(t *testing.T, n int) disks {
	t.Helper()
	var d disks
	for range n {
		d = append(d, filepath.Join(t.TempDir(), "disk"))
	}
	for _, dir := range d {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d disks) urls() (urls []string) {
	for _, dir := range d {
		urls = append(urls, "dir:"+dir+"/copy")
	}
	return urls
}

func (d disks) mountArgs(layout string) []string {
	args := []string{"--erasure", layout, "--encrypt", "yes"}
	for _, url := range d.urls() {
		args = append(args, "--target", url)
	}
	return args
}

func (u *user) take(d disks, which ...int) {
	u.t.Helper()
	for _, i := range which {
		u.must(os.Rename(d[i], d[i]+".away"))
	}
}

func (u *user) bring(d disks, which ...int) {
	u.t.Helper()
	for _, i := range which {
		u.must(os.Rename(d[i]+".away", d[i]))
	}
}

// parts counts the shards and copies of packs on a disk.
func (u *user) parts(dir string) (n int) {
	u.t.Helper()
	u.must(filepath.WalkDir(filepath.Join(dir, "copy", "packs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	}))
	return n
}

// TestSpread: a copy that is spread 4+2 over six disks. Any two may go away, or be damaged: snapshots are copied and read all the same, status tells of it, and what they
// lack is put when they are back. With three gone, a clear error says so.
func TestSpread(t *testing.T) {
	d := newDisks(t, 6)
	u := newUser(t, volume.Options{Args: d.mountArgs("4+2")})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	u.take(d, 1, 4)
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait")
	if r := u.degraded(); r == 0 {
		t.Error("status doesn't tell that two disks are away")
	}
	recovery := filepath.Join(t.TempDir(), "recovery")
	u.must(os.WriteFile(recovery, []byte(u.run("key", "recovery", u.Mount)), 0o600))
	attach := func() string {
		state := filepath.Join(t.TempDir(), "state")
		u.run(append(append([]string{"attach"}, d.urls()...), state, "--erasure", "4+2", "--key", recovery)...)
		return state
	}
	state := attach()
	u.restored(state)
	u.run("verify", state, "--read-data")
	u.take(d, 0)
	u.refused([]string{"disk"}, "restore", state, "a", t.TempDir())
	u.snapshot("c")
	u.refused([]string{"disk"}, "sync", u.Mount, "--wait")
	u.bring(d, 0, 1, 4)
	u.repaired(d)
	u.take(d, 0, 2)
	u.scribble(d[3])
	u.bring(d, 2)
	u.restored(attach())
}

// degraded is what status says of the copy.
func (u *user) degraded() int64 {
	u.t.Helper()
	var doc struct {
		Volumes []struct{ Remotes []struct{ Degraded int64 } }
	}
	u.must(json.Unmarshal([]byte(u.run("status", u.Mount, "--json")), &doc))
	return doc.Volumes[0].Remotes[0].Degraded
}

// repaired waits until all disks have the same number of parts.
func (u *user) repaired(d disks) {
	u.t.Helper()
	counts := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		u.run("sync", u.Mount, "--wait")
		same := u.degraded() == 0
		counts = ""
		for _, dir := range d {
			n := u.parts(dir)
			same = same && n == u.parts(d[0])
			counts += fmt.Sprint(n, " ")
		}
		if same {
			return
		}
	}
	u.t.Fatalf("parts on the disks: %s, degraded: %d", counts, u.degraded())
}

// scribble flips a byte in every file on a disk.
func (u *user) scribble(dir string) {
	u.t.Helper()
	u.must(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		if err != nil || len(p) == 0 {
			return err
		}
		p[u.rng.IntN(len(p))] ^= 1
		return os.WriteFile(path, p, 0o600)
	}))
}
