package cow

import (
	"context"
	"errors"
	"io/fs"
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
