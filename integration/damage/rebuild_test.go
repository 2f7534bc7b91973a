package damage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestRebuildKilled ends rebuilds at random moments with SIGKILL. At each, the state is as it was, or rebuilt; the next rebuild goes
// through, and leaves nothing of those before it.
func TestRebuildKilled(t *testing.T) {
	r := random(t)
	u := newUsed(t)
	u.umount()
	index := filepath.Join(u.StateDir(), "index.db")
	u.must(scribble(index, 4096, 40_000))
	began := time.Now()
	u.run("rebuild", u.Backing)
	whole := time.Since(began)
	killed := 0
	for range *rebuildKills {
		if r.IntN(3) > 0 {
			u.must(os.WriteFile(index, rig.RandomBytes(40_000), 0o600))
		} else {
			u.must(os.RemoveAll(index))
		}
		cmd := exec.CommandContext(t.Context(), u.Bin, "rebuild", u.Backing)
		u.must(cmd.Start())
		timer := time.AfterFunc(time.Duration(r.Int64N(int64(whole))), func() { cmd.Process.Signal(unix.SIGKILL) })
		if cmd.Wait() != nil {
			killed++
		}
		timer.Stop()
	}
	t.Logf("%d of %d rebuilds were killed", killed, *rebuildKills)
	u.rebuildAndCheck()
	for _, left := range []string{"index.rebuild.db", "index.rebuild.intents", "index.spare", "index.unused"} {
		if _, err := os.Lstat(filepath.Join(u.StateDir(), left)); err == nil {
			t.Errorf("%s is left behind", left)
		}
	}
}

// TestRebuildSalvages: packs whose header or end is damaged are copied, so that after a rebuild everything is whole; a prune
// removes the damaged ones.
func TestRebuildSalvages(t *testing.T) {
	u := newUsed(t)
	u.umount()
	store := filepath.Join(u.StateDir(), "store")
	n := 0
	u.must(eachPack(store, func(path string) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		n++
		return flip(map[int]int{1: 1, 0: int(st.Size()) - 20}[n%2], 8)(path)
	}))
	u.must(os.Remove(filepath.Join(u.StateDir(), "index.db")))
	u.run("rebuild", u.Backing)
	u.run("verify", u.Backing, "--read-data")
	u.run("prune", u.Backing)
	left := 0
	u.must(eachPack(store, func(string) error { left++; return nil }))
	if left != n {
		t.Errorf("%d packs, after a prune %d: want the copies alone", n, left)
	}
	u.start()
	u.snapshot("after")
	u.sound()
}

// TestRebuildAfterDeletes: a gap in the chain of manifests is taken for a deletion, a damaged manifest is moved aside, and verify and
// prune go on from there.
func TestRebuildAfterDeletes(t *testing.T) {
	u := newUsed(t)
	for _, name := range []string{"third", "fourth", "fifth"} {
		overwrite(t, u.at("data"), 1000, 100)
		u.snapshot(name)
	}
	all, err := u.Snapshots(t.Context())
	u.must(err)
	u.run("delete", u.Mount, "second")
	u.umount()
	u.must(flip(30, 0x80)(filepath.Join(u.StateDir(), "store", "manifests", all[3].ID+".json")))
	u.must(os.Remove(filepath.Join(u.StateDir(), "index.db")))
	out := u.run("rebuild", u.Backing)
	for _, id := range []string{all[1].ID, all[3].ID} {
		if !strings.Contains(out, id) {
			t.Errorf("rebuild doesn't tell of %s: %s", id, out)
		}
	}
	if _, err := os.Stat(filepath.Join(u.StateDir(), "store", "damaged", all[3].ID+".json")); err != nil {
		t.Error(err)
	}
	delete(u.want, "second")
	delete(u.want, "fourth")
	u.run("prune", u.Backing)
	u.start()
	u.snapshot("after")
	u.sound()
}

// TestRebuildRefusals: what can't be rebuilt says why.
func TestRebuildRefusals(t *testing.T) {
	u := newUsed(t)
	u.refused([]string{u.Mount, "unmount it first"}, "rebuild", u.Mount)
	u.refused([]string{u.Mount, "unmount it first"}, "rebuild", u.Backing)
	u.umount()
	empty := t.TempDir()
	u.refused([]string{empty}, "rebuild", empty)
	u.refused([]string{"missing"}, "rebuild", filepath.Join(empty, "missing"))
	lock, err := os.Open(filepath.Join(u.StateDir(), "index.db"))
	u.must(err)
	defer lock.Close()
	u.must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	u.refused([]string{"in use"}, "rebuild", u.Backing)
	u.must(lock.Close())
	u.must(os.RemoveAll(filepath.Join(u.StateDir(), "index.db")))
	u.must(os.Remove(filepath.Join(u.StateDir(), "volume.json")))
	u.run("rebuild", u.StateDir()) // packs and manifests suffice
	u.run("verify", u.StateDir(), "--read-data")
}

// TestLargeStore damages a large store at random places: what can be read is right, and after a rebuild and a snapshot the newest snapshot is
// whole.
func TestLargeStore(t *testing.T) {
	r := random(t)
	u := &used{Volume: rig.Mounted(t, volume.Options{}), t: t, want: map[string]model{}}
	for i := range *largeMiB {
		rig.WriteFile(t, u.at("file"+string(rune('a'+i%26))+string(rune('a'+i/26))), 1<<20)
	}
	u.snapshot("first")
	for path := range u.want["first"] {
		overwrite(t, u.at(path), r.Int64N(1<<20-4096), 4096)
	}
	u.snapshot("second")
	u.umount()
	var files []string
	u.must(eachPack(filepath.Join(u.StateDir(), "store"), func(path string) error { files = append(files, path); return nil }))
	for range *largeHits {
		path := files[r.IntN(len(files))]
		st, err := os.Stat(path)
		u.must(err)
		u.must(flip(r.IntN(int(st.Size())), mask(r))(path))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*limit)
	defer cancel()
	f, err := inspect(ctx, u.StateDir(), u.want)
	u.must(err)
	if f.harmless() {
		t.Error("the damage isn't noticed")
	}
	u.run("rebuild", u.Backing, "--read-data")
	u.start()
	u.snapshot("after")
	u.run("verify", u.Mount, "after", "--read-data")
	same(t, treeOf(t, u.SnapshotDir("after")), u.want["after"])
}
