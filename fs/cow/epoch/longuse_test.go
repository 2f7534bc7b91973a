package epoch

import (
	"fmt"
	"os"
	"testing"
)

// TestReplacedHints: an epoch in which files are renamed, or made and removed, for long has the hints of those that are there.
func TestReplacedHints(t *testing.T) {
	dir := t.TempDir()
	e, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	hint := func(ino, n uint64) (uint64, string) { return n % 5, fmt.Sprintf("%0*d", 1+(ino+n)%40, n) }
	const inodes, times = 20, 1000
	for n := range uint64(times) {
		for ino := range uint64(inodes) {
			e.Inode(ino, 1).SetHint(hint(ino, n))
		}
	}
	st, err := os.Stat(namesPath(dir, 1))
	if err != nil || st.Size() > firstSegment {
		t.Errorf("%d inodes have %d bytes of names (%v)", inodes, st.Size(), err)
	}
	check := func(e *Epoch) {
		t.Helper()
		for ino := range uint64(inodes) {
			p, name := e.Find(ino).Hint()
			if wantP, want := hint(ino, times-1); p != wantP || name != want {
				t.Errorf("inode %d has the hint %d %q, want %d %q", ino, p, name, wantP, want)
			}
		}
	}
	check(e)
	e.Close()
	if e, err = Load(dir, 1); err != nil || e.Damaged() != 0 {
		t.Fatal(err, e.Damaged())
	}
	defer e.Close()
	check(e)
}

// TestTooManyNames: what is remembered of a directory is bounded, and nothing is forgotten.
func TestTooManyNames(t *testing.T) {
	dir := t.TempDir()
	e, err := Create(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := e.Inode(1, 1)
	name := func(n int) string { return fmt.Sprintf("%08d", n) }
	for n := range maxNames - 1 {
		d.addNameLocked(name(n))
	}
	if !d.MarkName(name(maxNames-1)) || d.HasAllNames() {
		t.Fatal("all names are marked too early")
	}
	pos := e.names.mu.pos
	for n := range 1000 {
		if first := d.MarkName(name(maxNames + n)); first != (n == 0) {
			t.Fatalf("name %d beyond the limit: first is %v", n, first)
		}
	}
	if !d.HasAllNames() || e.names.mu.pos != pos || !d.HasName(name(0)) || d.HasName(name(maxNames)) || !d.DirtyName(name(maxNames)) {
		t.Errorf("beyond the limit: all %v, %d bytes, were %d", d.HasAllNames(), e.names.mu.pos, pos)
	}
	e.Close()
	if e, err = Load(dir, 1); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if d := e.Find(1); !d.HasAllNames() || !d.HasName(name(maxNames-1)) {
		t.Errorf("loaded: all %v, %d names", d.HasAllNames(), len(d.Names()))
	}
}
