package damage

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// model is the content of files by path; directories end in a slash.
type model map[string][]byte

// specimen is a volume that was used and unmounted, with what its snapshots hold.
type specimen struct {
	backing, state string
	want           map[string]model // by the snapshots' names
	files          map[string][]byte
}

const bigFile = 5 << 20 // large enough to have fingerprints

// newSpecimen makes a small volume with three snapshots, and changes since the last. crash: nothing was unmounted in order.
func newSpecimen(t *testing.T, crash bool) *specimen {
	t.Helper()
	v := rig.Mounted(t, volume.Options{Args: []string{"--log-level", "debug"}})
	s := &specimen{backing: v.Backing, state: v.StateDir(), want: map[string]model{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(v.Mount, name) }
	must(os.Mkdir(at("dir"), 0o755))
	rig.WriteFile(t, at("data"), 100_000)
	must(os.WriteFile(at("big"), bytes.Repeat([]byte("graph\n"), 5_000), 0o644))
	must(os.Truncate(at("big"), bigFile))
	for _, c := range "abcdefghijklmnopqrst" {
		rig.WriteFile(t, at("dir/"+string(c)), 200*int(c-'a'))
	}
	take := func(name string) {
		t.Helper()
		_, err := v.Snapshot(t.Context(), name)
		must(err)
		s.want[name] = treeOf(t, v.Backing)
	}
	take("first")
	overwrite(t, at("data"), 40_000, 5_000)
	overwrite(t, at("big"), 1<<20, 4096)
	must(os.Remove(at("dir/c")))
	take("second")
	overwrite(t, at("big"), 3<<20, 10)
	rig.WriteFile(t, at("dir/new"), 7_000)
	take("third")
	overwrite(t, at("data"), 90_000, 5_000)
	must(os.Rename(at("dir/d"), at("dir/moved")))
	if crash {
		must(v.KillAll(t.Context()))
	}
	must(v.Umount(t.Context()))
	s.read(t)
	return s
}

func overwrite(t *testing.T, path string, off int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(rig.RandomBytes(n), off)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// treeOf reads all files below dir.
func treeOf(t *testing.T, dir string) model {
	t.Helper()
	m := model{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			m[rel+"/"] = nil
			return nil
		}
		m[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// read keeps the state's files in memory. What the index's file has beyond its pages is left off.
func (s *specimen) read(t *testing.T) {
	t.Helper()
	s.files = map[string][]byte{}
	err := filepath.WalkDir(s.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(s.state, path)
		if err == nil {
			s.files[rel], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.files["index.db"] = pagesInUse(s.files["index.db"])
}

// pagesInUse cuts a bbolt file behind the last page that its metas know of.
func pagesInUse(p []byte) []byte {
	const page, pages = 4096, 16 + 40
	n := max(binary.NativeEndian.Uint64(p[pages:]), binary.NativeEndian.Uint64(p[page+pages:]))
	return p[:n*page]
}

// names lists the files, sorted.
func (s *specimen) names() []string { return slices.Sorted(maps.Keys(s.files)) }

// put makes dir a copy of the state.
func (s *specimen) put(t *testing.T, dir string) {
	t.Helper()
	err := os.RemoveAll(dir)
	for _, sub := range []string{"", "log", "epochs", "markers", "preimages", "nodes", "fingerprints", "store/packs", "store/manifests"} {
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, sub), 0o700)
		}
	}
	for name := range s.files {
		if err == nil {
			err = s.restore(dir, name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// restore writes one file of the copy in dir anew. A long tail of zeros becomes a hole.
func (s *specimen) restore(dir, name string) error {
	path, p := filepath.Join(dir, name), s.files[name]
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, bytes.TrimRight(p, "\x00"), 0o600); err != nil {
		return err
	}
	return os.Truncate(path, int64(len(p)))
}

// kind tells what a file of the state is, by the first part of its name.
func kind(name string) string {
	first, _, _ := strings.Cut(name, "/")
	if first == "store" || first == "epochs" {
		return filepath.Dir(name)[:min(len(filepath.Dir(name)), len("store/manifests"))] + filepath.Ext(name)
	}
	return first
}
