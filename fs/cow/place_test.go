package cow

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A directory that can't be found has not lost its names: the snapshot fails rather than to be without them. Only a file may
// have gone unseen.
func TestNamesOfADirectoryThatIsFoundNowhere(t *testing.T) {
	w := newWorld(t)
	w.create("f", fill(1, blockSize))
	e := w.barrier()
	defer e.Release(false)
	const nowhere = 1 << 40
	if _, ok, err := e.Entry(context.Background(), nowhere, "f"); !errors.Is(err, errNotFound) || ok {
		t.Errorf("name: %v, %v; want %v", ok, err, errNotFound)
	}
	if _, err := e.Entries(context.Background(), nowhere); !errors.Is(err, errNotFound) {
		t.Errorf("all names: %v, want %v", err, errNotFound)
	}
	if _, err := e.Inode(context.Background(), nowhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("inode: %v, want %v", err, fs.ErrNotExist)
	}
	if e.places.walks != searchesForDirs {
		t.Errorf("the volume was walked %d times, want %d", e.places.walks, searchesForDirs)
	}
}

// TestPlacesInACircle: directories that were moved into each other leave hints that lead in circles. What can be found is found, and what can't be
// is given up at once.
func TestPlacesInACircle(t *testing.T) {
	w := newWorld(t)
	w.close()
	w.must(os.MkdirAll(filepath.Join(w.back, "a", "b"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.back, "a", "b", "f"), nil, 0o600))
	w.open(false)
	ino := func(name string) uint64 {
		var st syscall.Stat_t
		w.must(syscall.Stat(filepath.Join(w.back, name), &st))
		return st.Ino
	}
	a, b, f := ino("a"), ino("a/b"), ino("a/b/f")
	const lost, nowhere = 1 << 40, 1<<40 + 1
	places := map[uint64][]place{f: {{parent: a, name: "f"}}}
	for range 30 { // of as many snapshots that failed
		places[a] = append(places[a], place{parent: b, name: "a"})
		places[b] = append(places[b], place{parent: a, name: "old"})
		places[lost] = append(places[lost], place{parent: nowhere, name: "x"}, place{parent: a, name: "y"})
		places[nowhere] = append(places[nowhere], place{parent: lost, name: "x"}, place{parent: b, name: "y"})
	}
	places[f] = append(places[f], place{parent: b, name: "f"})
	places[a] = append(places[a], place{parent: w.v.Root(), name: "a"})
	places[b] = append(places[b], place{parent: a, name: "b"})
	of := func(ino uint64) []place { return places[ino] }
	if err := w.v.locate(lost, of); !errors.Is(err, errNotFound) {
		t.Errorf("%v, want %v", err, errNotFound)
	}
	if err := w.v.locate(f, of); err != nil {
		t.Error(err)
	}
}
