package damage

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// used is a mounted volume with two snapshots, and its content at each.
type used struct {
	*volume.Volume
	t    *testing.T
	want map[string]model
}

func newUsed(t *testing.T) *used {
	t.Helper()
	u := &used{Volume: rig.Mounted(t, volume.Options{}), t: t, want: map[string]model{}}
	u.mkdir("dir")
	rig.WriteFile(t, u.at("data"), 600_000)
	rig.WriteFile(t, u.at("dir/small"), 300)
	u.snapshot("first")
	overwrite(t, u.at("data"), 300_000, 9_000)
	rig.WriteFile(t, u.at("dir/other"), 5_000)
	u.snapshot("second")
	overwrite(t, u.at("data"), 10_000, 10)
	return u
}

func (u *used) at(name string) string { return filepath.Join(u.Mount, name) }

func (u *used) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *used) mkdir(name string) { u.t.Helper(); u.must(os.Mkdir(u.at(name), 0o755)) }

func (u *used) snapshot(name string) volume.Snapshot {
	u.t.Helper()
	s, err := u.Snapshot(u.t.Context(), name)
	u.must(err)
	u.want[name] = treeOf(u.t, u.Backing)
	return s
}

func (u *used) start()  { u.t.Helper(); u.must(u.Start(u.t.Context())) }
func (u *used) umount() { u.t.Helper(); u.must(u.Umount(u.t.Context())) }

// run runs a command that must succeed.
func (u *used) run(args ...string) string {
	u.t.Helper()
	out, err := u.Run(u.t.Context(), args...)
	u.must(err)
	return out
}

// refused runs a command that must fail with one clear line that has all the words.
func (u *used) refused(words []string, args ...string) {
	u.t.Helper()
	_, err := u.Run(u.t.Context(), args...)
	var exit *volume.ExitError
	if !errors.As(err, &exit) || exit.Code != 1 {
		u.t.Errorf("graphvol %q: %v, want exit code 1", args, err)
		return
	}
	text := strings.TrimSpace(exit.Stderr)
	if strings.Contains(text, "\n") || strings.Contains(text, "panic") {
		u.t.Errorf("graphvol %q: not one line: %s", args, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			u.t.Errorf("graphvol %q: no %q in: %s", args, w, text)
		}
	}
}

// problem is what status --json shows.
func (u *used) problem() string {
	u.t.Helper()
	var doc struct{ Volumes []struct{ Problem string } }
	u.must(json.Unmarshal([]byte(u.run("status", u.Mount, "--json")), &doc))
	return doc.Volumes[0].Problem
}

// works uses the live volume.
func (u *used) works() {
	u.t.Helper()
	rig.SameFile(u.t, u.at("dir/small"), u.want["first"]["dir/small"])
	want := rig.WriteFile(u.t, u.at("written"), 20_000)
	rig.SameFile(u.t, filepath.Join(u.Backing, "written"), want)
	overwrite(u.t, u.at("data"), 400_000, 777)
}

// sound demands that verify is clean and that all snapshots are what they were, by the mount and by restore.
func (u *used) sound() {
	u.t.Helper()
	u.run("verify", u.Mount, "--read-data")
	for name, want := range u.want {
		same(u.t, treeOf(u.t, u.SnapshotDir(name)), want)
		dest := u.t.TempDir()
		u.run("restore", u.Mount, name, dest)
		same(u.t, treeOf(u.t, dest), want)
	}
}

func same(t *testing.T, got, want model) {
	t.Helper()
	for path := range want {
		if p, ok := got[path]; !ok || !bytes.Equal(p, want[path]) {
			t.Errorf("%s: there %v, %d bytes, want %d others", path, ok, len(p), len(want[path]))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s has appeared", path)
		}
	}
}

// ruins are ways to ruin an index.
func ruins() map[string]func(path string) error {
	return map[string]func(path string) error{
		"removed":   os.Remove,
		"empty":     cut(0),
		"cut":       cut(20_000),
		"meta page": flip(4096+20, 4),
		"root page": func(path string) error { return scribble(path, 2*4096, 8*4096) },
		"garbage":   func(path string) error { return scribble(path, 0, 1<<20) },
		"text":      func(path string) error { return os.WriteFile(path, []byte("not a database"), 0o600) },
	}
}

// scribble overwrites a part of a file with random bytes.
func scribble(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(rig.RandomBytes(int(to-from)), from)
	return err
}

// TestMountWithoutIndex: a volume whose index is lost or damaged mounts and works, says what to do, survives the death of its server, and is whole after a
// rebuild.
func TestMountWithoutIndex(t *testing.T) {
	all := ruins()
	for _, name := range some(random(t), slices.Sorted(maps.Keys(all)), 2) {
		ruin := all[name]
		t.Run(name, func(t *testing.T) {
			u := newUsed(t)
			u.umount()
			u.must(ruin(filepath.Join(u.StateDir(), "index.db")))
			advice := []string{"index.db", "graphvol rebuild " + u.Backing}
			for _, cmd := range []string{"snapshots", "verify", "prune", "status", "dirty"} {
				u.refused(advice, cmd, u.Backing)
			}
			u.start()
			u.works()
			u.refused(advice, "snapshot", u.Mount)
			u.refused(advice, "snapshots", u.Mount)
			u.refused([]string{"unmount it first"}, "rebuild", u.Mount)
			if got := u.problem(); !strings.Contains(got, advice[1]) {
				t.Errorf("status: %q", got)
			}
			if _, err := os.ReadDir(u.SnapshotDir("first")); !errors.Is(err, syscall.EIO) {
				t.Errorf("a snapshot without the index: %v", err)
			}
			u.must(u.KillServer(t.Context()))
			u.works()
			u.umount()
			u.rebuildAndCheck()
		})
	}
}

// rebuildAndCheck rebuilds the index of a volume that is not mounted.
func (u *used) rebuildAndCheck() {
	u.t.Helper()
	var res struct {
		Snapshots int
		Problems  []any
	}
	u.must(json.Unmarshal([]byte(u.run("rebuild", u.Backing, "--json")), &res))
	if res.Snapshots != len(u.want) || len(res.Problems) > 0 {
		u.t.Errorf("rebuilt: %+v, want %d snapshots", res, len(u.want))
	}
	u.start()
	if got := u.problem(); got != "" {
		u.t.Errorf("after a rebuild: %s", got)
	}
	if s := u.snapshot("after"); s.Kind != "full" {
		u.t.Errorf("the first snapshot after a rebuild is %s", s.Kind)
	}
	overwrite(u.t, u.at("data"), 1, 1)
	if s := u.snapshot("last"); s.Kind != "incremental" {
		u.t.Errorf("the second one is %s", s.Kind)
	}
	u.sound()
}

// TestIndexComesBack: an index that can be used again, after the volume was used without it, doesn't know what has changed.
func TestIndexComesBack(t *testing.T) {
	u := newUsed(t)
	u.umount()
	path := filepath.Join(u.StateDir(), "index.db")
	u.must(os.Rename(path, path+".aside"))
	u.start()
	u.works()
	u.umount()
	u.must(os.Rename(path+".aside", path))
	u.start()
	if s := u.snapshot("after"); s.Kind != "full" {
		t.Errorf("the snapshot is %s", s.Kind)
	}
	u.sound()
}

// TestIndexComesBackWhileMounted: the server after one that could not use the index may find that it can.
func TestIndexComesBackWhileMounted(t *testing.T) {
	for name, next := range map[string]func(*used){
		"killed":   func(u *used) { u.must(u.KillServer(t.Context())) },
		"upgraded": func(u *used) { u.run("upgrade", u.Mount) },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUsed(t)
			u.umount()
			path := filepath.Join(u.StateDir(), "index.db")
			u.must(os.Rename(path, path+".aside"))
			u.start()
			u.works()
			next(u) // finds no index
			u.works()
			u.must(os.Rename(path+".aside", path))
			next(u)
			if got := u.problem(); got != "" {
				t.Errorf("the problem is still %q", got)
			}
			overwrite(t, u.at("data"), 200_000, 50)
			if s := u.snapshot("after"); s.Kind != "full" {
				t.Errorf("the snapshot is %s", s.Kind)
			}
			overwrite(t, u.at("data"), 100_000, 50)
			if s := u.snapshot("next"); s.Kind != "incremental" {
				t.Errorf("the snapshot after it is %s", s.Kind)
			}
			u.sound()
		})
	}
}

// TestOlderIndex: an index from before the newest snapshot is noticed, what it calls changed isn't relied upon, and a rebuild brings the
// snapshot back.
func TestOlderIndex(t *testing.T) {
	u := newUsed(t)
	u.umount()
	path := filepath.Join(u.StateDir(), "index.db")
	older, err := os.ReadFile(path)
	u.must(err)
	u.start()
	u.snapshot("third")
	overwrite(t, u.at("data"), 200_000, 10)
	u.umount()
	u.must(os.WriteFile(path, older, 0o600))
	u.start()
	if got := u.problem(); !strings.Contains(got, "graphvol rebuild") {
		t.Errorf("status: %q", got)
	}
	if s := u.snapshot("fourth"); s.Kind != "full" {
		t.Errorf("the snapshot is %s", s.Kind)
	}
	u.umount()
	u.rebuildAndCheck()
}

// TestMountWithoutStore: a volume whose packs or manifests are gone mounts and works, and the next snapshot is whole.
func TestMountWithoutStore(t *testing.T) {
	all := map[string]func(store string) error{
		"store":     os.RemoveAll,
		"packs":     func(store string) error { return os.RemoveAll(filepath.Join(store, "packs")) },
		"manifests": func(store string) error { return os.RemoveAll(filepath.Join(store, "manifests")) },
		"cut packs": func(store string) error { return eachPack(store, cut(50)) },
		"headers":   func(store string) error { return eachPack(store, flip(2, 1)) },
	}
	for _, name := range some(random(t), slices.Sorted(maps.Keys(all)), 2) {
		ruin := all[name]
		t.Run(name, func(t *testing.T) {
			u := newUsed(t)
			u.umount()
			u.must(ruin(filepath.Join(u.StateDir(), "store")))
			u.start()
			u.works()
			if _, err := u.Run(t.Context(), "verify", u.Mount); err == nil {
				t.Error("verify is clean")
			}
			u.snapshot("after")
			u.run("verify", u.Mount, "after", "--read-data")
			same(t, treeOf(t, u.SnapshotDir("after")), u.want["after"])
		})
	}
}

// TestStoreBreaksWhileMounted: a snapshot whose parent has become unreadable fails and says so; the next is a full one, and whole.
func TestStoreBreaksWhileMounted(t *testing.T) {
	u := newUsed(t)
	u.must(eachPack(filepath.Join(u.StateDir(), "store"), cut(50)))
	u.works()
	u.refused([]string{"can't be read", "take another"}, "snapshot", u.Mount, "--name", "fails")
	if s := u.snapshot("after"); s.Kind != "full" {
		t.Errorf("the snapshot is %s", s.Kind)
	}
	u.run("verify", u.Mount, "after", "--read-data")
	same(t, treeOf(t, u.SnapshotDir("after")), u.want["after"])
}

func eachPack(store string, damage func(path string) error) error {
	packs, err := filepath.Glob(filepath.Join(store, "packs", "*", "*.pack"))
	for _, p := range packs {
		err = errors.Join(err, damage(p))
	}
	return err
}
