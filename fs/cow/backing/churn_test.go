package backing

import (
	"fmt"
	"syscall"
	"testing"
)

// TestForgotten: nothing is kept of files that were made, used and removed.
func TestForgotten(t *testing.T) {
	f := open(t, nil)
	root := f.Root()
	for i := range 3000 {
		name := fmt.Sprint("f", i)
		a := f.must(f.Create(Caller{}, root, name, syscall.O_RDWR, 0o600))
		if _, err := f.WriteAt(a.Ino, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Unlink(Caller{}, root, name); err != nil {
			t.Fatal(err)
		}
		f.Forget(a.Ino, 1)
	}
	nodes := 0
	f.nodes.each(func(*node) { nodes++ })
	if n := f.cache.all.Len(); n > 10 || nodes > 10 || len(f.table.segs) > 4 {
		t.Errorf("%d descriptors, %d nodes, %d segments are left", n, nodes, len(f.table.segs))
	}
}
