package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changes tells what dirty lists: what is there, and what is removed.
func (w *world) changes(volume string) (there, removed []string) {
	w.t.Helper()
	var d struct {
		Files []dirtyRow `json:"files"`
	}
	w.json(&d, "dirty", volume)
	for _, f := range d.Files {
		if f.Removed {
			removed = append(removed, f.Path)
		} else {
			there = append(there, f.Path)
		}
	}
	slices.Sort(there)
	slices.Sort(removed)
	return there, removed
}

func (w *world) at(name string) string { return filepath.Join(w.mnt, name) }

// What went is listed as it was called in the snapshot, whatever happened to names on the way, and what came and went isn't.
func TestDirtyTellsWhatWent(t *testing.T) {
	w := newWorld(t)
	w.run("mount", w.backing, w.mnt)
	err := errors.Join(os.MkdirAll(w.at("a/b"), 0o755), os.MkdirAll(w.at("d/x"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/b/gone", "a/b/stays", "d/x/y", "kept 1", "link 1", "moved", "old", "open"} {
		w.write(name, noise(1, 5000))
	}
	if err := errors.Join(os.Link(w.at("kept 1"), w.at("kept 2")), os.Link(w.at("link 1"), w.at("link 2"))); err != nil {
		t.Fatal(err)
	}
	w.snapshot("one")
	w.write("a/b/passing", noise(2, 5000))
	err = errors.Join(
		os.Remove(w.at("a/b/passing")), os.Mkdir(w.at("passing"), 0o755), os.Remove(w.at("passing")),
		os.Rename(w.at("a"), w.at("c")), os.Rename(w.at("c/b"), w.at("c/e")), os.Remove(w.at("c/e/gone")),
		os.RemoveAll(w.at("d")),
		os.Remove(w.at("kept 1")), os.Remove(w.at("link 1")), os.Remove(w.at("link 2")),
		os.Rename(w.at("moved"), w.at("c/away")), os.Remove(w.at("c/away")),
		os.Remove(w.at("old")))
	if err != nil {
		t.Fatal(err)
	}
	var open []*os.File
	for _, name := range []string{"open", "passing open"} {
		f, err := os.OpenFile(w.at(name), os.O_RDWR|os.O_CREATE, 0o644)
		if err = errors.Join(err, os.Remove(w.at(name))); err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open = append(open, f)
	}
	w.write("old", noise(3, 5000)) // likely with the number of one that went
	there := []string{".", "c", "c/e", "kept 2", "old"}
	removed := []string{"a/b/gone", "d", "d/x", "d/x/y", "link 1", "moved", "old", "open"}
	check := func(when, volume string) {
		t.Helper()
		a, b := w.changes(volume)
		if !slices.Equal(a, there) || !slices.Equal(b, removed) {
			t.Errorf("%s: changed %q, removed %q", when, a, b)
		}
	}
	check("mounted", w.mnt)
	if text := w.run("dirty", w.mnt); !strings.Contains(text, "0 B  a/b/gone (removed)\n") {
		t.Errorf("text:\n%s", text)
	}
	for _, f := range open {
		f.Close()
	}
	check("mounted, nothing open", w.mnt)
	w.run("umount", w.mnt)
	check("not mounted", w.backing)
	w.run("mount", w.backing, w.mnt)
	check("mounted again", w.mnt)
	w.snapshot("two")
	if a, b := w.changes(w.mnt); len(a)+len(b) > 0 {
		t.Errorf("after a snapshot: changed %q, removed %q", a, b)
	}
	w.run("umount", w.mnt)
}

// A file of gigabytes that holds three blocks is three blocks of work for the next snapshot, and every command says so.
func TestDirtyBytesLeaveHolesOut(t *testing.T) {
	w := newWorld(t)
	w.run("mount", w.backing, w.mnt, "--cache", "through")
	w.snapshot("one")
	w.write("dense", noise(1, 10_000))
	f, err := os.Create(w.at("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(57 << 30)
	for _, off := range []int64{0, 1 << 30, 56 << 30} {
		_, werr := f.WriteAt(noise(2, 4096), off)
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	count := func(volume string) (n int64) {
		t.Helper()
		var d struct {
			DirtyBytes int64 `json:"dirty_bytes"`
		}
		w.json(&d, "dirty", volume)
		return d.DirtyBytes
	}
	n := count(w.mnt)
	if n < 10_000+3*4096 || n > 1<<20 { // a filesystem may allocate more than a block
		t.Errorf("dirty says %d", n)
	}
	if st := w.status(w.mnt); st.DirtyBytes != n {
		t.Errorf("status says %d, dirty %d", st.DirtyBytes, n)
	}
	w.run("umount", w.mnt)
	if off := count(w.backing); off != n {
		t.Errorf("%d while mounted, %d afterwards", n, off)
	}
}
