package copies

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestBareMachine: with nothing but the copy and its key, on a machine that has lost everything else, snapshots are listed, verified, browsed and restored, and the
// database goes on.
func TestBareMachine(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			url := k.url(t)
			u := newUser(t, volume.Options{Args: k.args(url)})
			for _, name := range []string{"a", "b", "c"} {
				u.snapshot(name)
			}
			u.run("delete", u.Mount, "b")
			delete(u.want, "b")
			u.run("prune", u.Mount)
			u.run("sync", u.Mount, "--wait")
			if r := u.remotes(u.Mount); len(r) != 1 || r[0].Snapshots != 2 || r[0].Encrypted != k.encrypt || r[0].Error != "" {
				t.Errorf("%+v", r)
			}
			attach := []string{"attach", url, filepath.Join(t.TempDir(), "state")}
			if k.encrypt {
				recovery := filepath.Join(t.TempDir(), "recovery")
				u.must(os.WriteFile(recovery, []byte(strings.ToLower(u.run("key", "recovery", u.Mount))), 0o600))
				u.refused([]string{"encrypted", "key"}, attach...)
				attach = append(attach, "--key", recovery)
			}
			u.must(u.Umount(t.Context()))
			u.must(os.RemoveAll(u.Backing))
			u.must(os.RemoveAll(u.StateDir()))

			state := attach[2]
			u.run(attach...)
			u.refused([]string{"not empty"}, attach...)
			u.restored(state)
			u.run("verify", state, "--read-data")
			u.goOn(state)
			blocks, err := filepath.Glob(filepath.Join(state, "cache", "*"))
			if err != nil || len(blocks) == 0 {
				t.Errorf("nothing was kept of what was read: %v", err)
			}
			for _, path := range blocks {
				if k.encrypt != strings.HasSuffix(path, ".sealed") {
					t.Errorf("%s, of a copy that is encrypted: %v", path, k.encrypt)
				}
			}
		})
	}
}

// goOn mounts a volume with an attached state, which takes the copy over.
func (u *user) goOn(state string) {
	u.t.Helper()
	u.run("restore", state, "latest", u.Backing)
	u.State = state
	u.must(u.Start(u.t.Context()))
	for name, want := range u.want {
		same(u.t, name, content(u.t, u.SnapshotDir(name)), want)
	}
	u.snapshot("d")
	u.refused([]string{"another state directory", "--take-over"}, "sync", u.Mount, "--wait")
	u.run("sync", u.Mount, "--wait", "--take-over")
	u.snapshot("e")
	u.run("sync", u.Mount, "--wait")
	u.run("delete", u.Mount, "a")
	delete(u.want, "a")
	u.run("prune", u.Mount)
	u.run("sync", u.Mount, "--wait")
	u.run("verify", u.Mount, "--read-data")
	u.must(u.Umount(u.t.Context()))
	u.restored(state)
}

// TestTwoMachines: what was taken over is noticed by the machine that it was taken from.
func TestTwoMachines(t *testing.T) {
	k := kinds()[0]
	url := k.url(t)
	u := newUser(t, volume.Options{Args: k.args(url)})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	other := filepath.Join(t.TempDir(), "state")
	u.run("attach", url, other)
	u.refused([]string{"--take-over"}, "sync", other)
	u.snapshot("b")
	u.run("sync", u.Mount, "--wait") // nobody has taken it over
	u.refused([]string{"writer", "head 3"}, "sync", other)
	u.run("sync", other, "--take-over")
	u.snapshot("c")
	u.refused([]string{"another state directory", "--take-over"}, "sync", u.Mount, "--wait")
	u.run("sync", u.Mount, "--wait", "--take-over")
	u.run("verify", u.Mount, "--read-data")
	third := filepath.Join(t.TempDir(), "state")
	u.run("attach", url, third)
	u.restored(third)
}

// TestPruneWhatOnlyTheCopyHas: after a machine has taken a copy over, prune rewrites packs that it has never had, where most of one is unused.
func TestPruneWhatOnlyTheCopyHas(t *testing.T) {
	k := kinds()[0]
	url := k.url(t)
	u := newUser(t, volume.Options{Args: k.args(url)})
	const size = 4 << 20
	file := filepath.Join(u.Mount, "big")
	rig.WriteFile(t, file, size)
	keep := func(name string) {
		_, err := u.Snapshot(t.Context(), name)
		u.must(err)
		u.want[name] = content(t, u.Backing)
	}
	keep("a")
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	u.must(err)
	_, err = f.WriteAt(rig.RandomBytes(size*3/4), 0)
	u.must(err)
	u.must(f.Close())
	keep("b")
	u.run("sync", u.Mount, "--wait")
	u.must(u.Umount(t.Context()))

	state := filepath.Join(t.TempDir(), "state")
	u.run("attach", url, state)
	u.must(os.RemoveAll(u.Backing))
	u.run("restore", state, "latest", u.Backing)
	u.State = state
	u.must(u.Start(t.Context()))
	u.run("sync", u.Mount, "--wait", "--take-over")
	u.run("delete", u.Mount, "a")
	delete(u.want, "a")
	var dry, res struct {
		PacksRewritten int   `json:"packs_rewritten"`
		FreedBytes     int64 `json:"freed_bytes"`
		StoreBytes     int64 `json:"store_bytes"`
	}
	u.must(json.Unmarshal([]byte(u.run("prune", u.Mount, "--dry-run", "--json")), &dry))
	u.must(json.Unmarshal([]byte(u.run("prune", u.Mount, "--json")), &res))
	if res != dry || res.PacksRewritten != 1 || res.FreedBytes < size/2 || res.StoreBytes < size/8 {
		t.Errorf("%+v, the dry run said %+v", res, dry)
	}
	u.run("sync", u.Mount, "--wait")
	u.run("verify", u.Mount, "--read-data")
	u.restored(u.Mount)
	third := filepath.Join(t.TempDir(), "state")
	u.run("attach", url, third)
	u.restored(third)
}
