package copies

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/volume"
)

// filesBelow lists the files below a directory.
func (u *user) filesBelow(dir string) (paths []string) {
	u.t.Helper()
	u.must(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

// objects lists the files below directories of a store, of which there must be some.
func (u *user) objects(root string, dirs ...string) (paths []string) {
	u.t.Helper()
	for _, dir := range dirs {
		paths = append(paths, u.filesBelow(filepath.Join(root, dir))...)
	}
	if len(paths) == 0 {
		u.t.Fatalf("nothing below %s", root)
	}
	return paths
}

// hurt flips a bit in a file, cuts it, or removes it, by turns.
func (u *user) hurt(path string, how int) {
	u.t.Helper()
	p, err := os.ReadFile(path)
	u.must(err)
	switch how % 3 {
	case 0:
		p[u.rng.IntN(len(p))] ^= 1
		err = os.WriteFile(path, p, 0o600)
	case 1:
		err = os.Truncate(path, int64(u.rng.IntN(len(p))))
	case 2:
		err = os.Remove(path)
	}
	u.must(err)
}

// scrubbed is what scrub --json and repair --json tell.
type scrubbed struct {
	Store  *scrubbedRow
	Copies []scrubbedRow
	Lost   []struct{ Snapshot, Path, Message string }
}

type scrubbedRow struct {
	Objects, Weak, Damaged, Missing, Mended, Lost int
	ReadBytes                                     int64 `json:"read_bytes"`
	Findings                                      []struct {
		Object, Trouble, Message string
		Mended                   bool
	}
}

// scrub runs scrub or repair, whose exit code must tell whether something is wrong then.
func (u *user) scrub(wrong bool, args ...string) (doc scrubbed) {
	u.t.Helper()
	out, err := u.Run(u.t.Context(), append(args, "--json")...)
	var exit *volume.ExitError
	if wrong && (!errors.As(err, &exit) || exit.Code != 1) || !wrong && err != nil {
		u.t.Errorf("%q: %v; want something wrong: %v; it told %s", args, err, wrong, out)
	}
	u.must(json.Unmarshal([]byte(out), &doc))
	return doc
}

// clean demands that nothing is wrong with the copies and the store, and that everything reads back.
func (u *user) clean() {
	u.t.Helper()
	if doc := u.scrub(false, "scrub", u.Mount); doc.Copies[0].ReadBytes == 0 {
		u.t.Errorf("nothing was read: %+v", doc)
	}
	u.run("verify", u.Mount, "--read-data")
	u.restored(u.Mount)
}

// TestRepairStore: a store that is damaged and has lost packs and manifests heals from its copy, mounted or not.
func TestRepairStore(t *testing.T) {
	for i, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			u := newUser(t, volume.Options{Args: k.args(k.url(t))})
			u.snapshot("a")
			u.snapshot("b")
			u.run("sync", u.Mount, "--wait")
			mounted := i != 1
			if !mounted {
				u.must(u.Umount(t.Context()))
			}
			hurt := u.objects(u.StateDir()+"/store", "packs", "manifests")
			for i, path := range hurt {
				u.hurt(path, i)
			}
			u.refused([]string{"problem"}, "verify", u.Backing, "--read-data")
			doc := u.scrub(false, "repair", u.Backing)
			if doc.Store.Mended != len(hurt) || doc.Copies[0].Weak+doc.Copies[0].Damaged > 0 {
				t.Errorf("%d objects were damaged or removed: %+v", len(hurt), doc)
			}
			if !mounted {
				u.must(u.Start(t.Context()))
			}
			u.clean()
		})
	}
}

// TestScrubCopy: damage on a copy is found, and the copy whole again after the next round, or after a repair.
func TestScrubCopy(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			var url, root string
			if k.name == "bucket" {
				srv := s3test.Start(t)
				url, root = srv.URL("graph"), srv.File("graph")
			} else {
				url = k.url(t)
				root = strings.TrimPrefix(url, "dir:")
			}
			u := newUser(t, volume.Options{Args: k.args(url)})
			u.snapshot("a")
			u.snapshot("b")
			u.run("sync", u.Mount, "--wait")
			u.clean()
			hurt := u.objects(root, "packs", "manifests")
			for i, path := range hurt {
				u.hurt(path, i)
			}
			doc := u.scrub(true, "scrub", u.Mount)
			if r := doc.Copies[0]; r.Damaged+r.Missing != len(hurt) || len(r.Findings) != len(hurt) {
				t.Errorf("%d objects were damaged or removed: %+v", len(hurt), r)
			}
			u.run("sync", u.Mount, "--wait")
			u.clean()
			u.hurt(hurt[0], 0)
			if doc := u.scrub(false, "repair", u.Mount); doc.Copies[0].Mended != 1 || doc.Store.Mended != 0 {
				t.Errorf("%+v", doc)
			}
			u.clean()
		})
	}
}

// TestRepairSpread: two of six disks are damaged, one of them emptied: everything is put back. What neither the store nor the disks have is lost, and named.
func TestRepairSpread(t *testing.T) {
	d := newDisks(t, 6)
	u := newUser(t, volume.Options{Args: d.mountArgs("4+2")})
	u.snapshot("a")
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait")
	u.must(os.RemoveAll(filepath.Join(d[1], "copy")))
	u.scribble(d[4])
	doc := u.scrub(false, "repair", u.Mount)
	if r := doc.Copies[0]; r.Weak == 0 || r.Mended != r.Weak || r.Damaged > 0 {
		t.Errorf("%+v", r)
	}
	u.clean()
	for _, dir := range d {
		if n := u.parts(dir); n != u.parts(d[0]) {
			t.Errorf("%d parts on %s, %d on %s", n, dir, u.parts(d[0]), d[0])
		}
	}
	pack := u.objects(u.StateDir()+"/store", "packs")[0]
	u.must(os.Remove(pack))
	name := strings.TrimPrefix(pack, u.StateDir()+"/store/")
	for _, dir := range d {
		parts, err := filepath.Glob(filepath.Join(dir, "copy", name) + "*")
		u.must(err)
		for _, path := range parts {
			u.must(os.Remove(path))
		}
	}
	doc = u.scrub(true, "repair", u.Mount)
	named := map[string]int{}
	for _, p := range doc.Lost {
		named[p.Snapshot+" "+p.Path]++
	}
	for what, n := range named {
		if n > 1 || what[:1] != "a" && what[:1] != "b" {
			t.Errorf("%q is named %d times", what, n)
		}
	}
	if len(named) == 0 || doc.Store.Lost != 1 || doc.Copies[0].Lost != 1 {
		t.Errorf("%+v", doc)
	}
	u.refused([]string{"lost", "new snapshot"}, "repair", u.Mount)
}

// TestScrubsByItself: a mounted volume finds what is damaged on its copy, says so, and puts it again, without being asked; also after its server was killed.
func TestScrubsByItself(t *testing.T) {
	url := "dir:" + filepath.Join(t.TempDir(), "copy")
	u := newUser(t, volume.Options{Args: []string{"--target", url, "--scrub-every", "1s", "--scrub-limit", "0"}})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	before := content(t, strings.TrimPrefix(url, "dir:"))
	for i, path := range u.objects(strings.TrimPrefix(url, "dir:"), "packs", "manifests") {
		u.hurt(path, i)
		u.must(u.KillServer(t.Context()))
	}
	healed := func() bool {
		now := content(t, strings.TrimPrefix(url, "dir:"))
		for name, p := range before {
			if now[name] != p {
				return false
			}
		}
		r := u.remotes(u.Mount)[0]
		return r.Scrubbed != nil && r.Problems == 0
	}
	told := false
	for deadline := time.Now().Add(time.Minute); !healed(); time.Sleep(20 * time.Millisecond) {
		told = told || u.remotes(u.Mount)[0].Problems > 0
		if time.Now().After(deadline) {
			t.Fatalf("the copy doesn't heal: %+v", u.remotes(u.Mount))
		}
	}
	if !told {
		t.Error("status didn't tell that something was wrong")
	}
	u.clean()
}

// TestMoveSpread: a spread copy is moved to another layout on other disks while it is used. A mount that names it as it was means the same copy, and so does an
// attached state whose store is there.
func TestMoveSpread(t *testing.T) {
	d := newDisks(t, 9)
	u := newUser(t, volume.Options{Args: d[:6].mountArgs("4+2")})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	to := append(disks{}, d[4:]...)
	args := []string{"repair", u.Mount, "--erasure", "3+2"}
	for _, url := range to.urls() {
		args = append(args, "--target", url)
	}
	u.refused([]string{"needs 9 targets, and 6 are named"}, "repair", u.Mount, "--erasure", "7+2")
	u.take(d, 5)
	if r := u.scrub(true, args...).Copies[0]; r.Weak == 0 {
		t.Errorf("%+v", r)
	}
	if r := u.remotes(u.Mount)[0]; len(r.Former) != 4 || len(r.URLs) != 5 {
		t.Errorf("%+v", r)
	}
	u.restored(u.Mount)
	u.bring(d, 5)
	u.must(u.KillServer(t.Context())) // the next one gets the mount's own options
	u.snapshot("b")
	u.scrub(false, "repair", u.Mount)
	r := u.remotes(u.Mount)[0]
	if len(r.Former) != 0 || r.Erasure != "3+2" || r.Snapshots != 2 {
		t.Errorf("%+v", r)
	}
	for _, dir := range d[:4] {
		if left := u.filesBelow(dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
	u.clean()
	u.must(u.Umount(t.Context()))
	u.must(u.Start(t.Context())) // with the arguments of before
	u.snapshot("c")
	u.upToDate(3)
	u.attachedMoves(d, to)
}

// attachedMoves attaches the copy, which is on some disks, and moves it back to six.
func (u *user) attachedMoves(d, on disks) {
	u.t.Helper()
	recovery := filepath.Join(u.t.TempDir(), "recovery")
	u.must(os.WriteFile(recovery, []byte(u.run("key", "recovery", u.Mount)), 0o600))
	u.must(u.Umount(u.t.Context()))
	state := filepath.Join(u.t.TempDir(), "state")
	u.run(append(append([]string{"attach"}, on.urls()...), state, "--erasure", "3+2", "--key", recovery)...)
	u.run("sync", state, "--take-over")
	args := []string{"repair", state, "--erasure", "4+2"}
	for _, url := range d[:6].urls() {
		args = append(args, "--target", url)
	}
	u.scrub(false, args...)
	for _, dir := range d[6:] {
		u.must(os.RemoveAll(dir))
	}
	u.restored(state)
	u.run("verify", state, "--read-data")
}
