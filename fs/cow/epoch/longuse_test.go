package epoch

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"graphvol/index"
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

// TestMerge: marks add up; what the last epoch that marked an inode says of it counts.
func TestMerge(t *testing.T) {
	a, b, c := memory(1), memory(2), memory(3)
	ident := index.Ident{Valid: true, Size: 5}
	for ino := range uint64(3) {
		in := a.Inode(ino, 0)
		in.MarkBlocks(ino, 1)
		in.MarkName("a")
		in.MarkRemoved()
		in.SetIdent(ident)
	}
	in := b.Inode(1, 0) // its number is in use again
	in.MarkBlocks(100, 2)
	in.MarkName("b")
	in.MarkFresh()
	b.Inode(2, 0).SetHint(7, "hint") // not marked: only known to be there
	c.Inode(1, 0).SetIdent(index.Ident{Valid: true, Size: 6})
	m := Merge(3, []*Epoch{a, b, c})
	if in := m.Find(0); !in.HasRemoved() || in.Ident() != ident || !in.Blocks(0, 1) {
		t.Errorf("an inode of the first epoch alone: %b, %+v", in.Flags(), in.Ident())
	}
	in = m.Find(1)
	if in.HasRemoved() || !in.HasFresh() || in.Ident().Valid || !in.Blocks(1, 1) || !in.Blocks(100, 2) || !slices.Equal(in.Names(), []string{"a", "b"}) {
		t.Errorf("an inode of two epochs: %b, %+v, %v", in.Flags(), in.Ident(), in.Names())
	}
	if in := m.Find(2); !in.HasRemoved() || in.Ident() != ident {
		t.Errorf("an inode that a later epoch has a hint of: %b, %+v", in.Flags(), in.Ident())
	}
	if p, name := m.Find(2).Hint(); p != 7 || name != "hint" || m.Number() != 3 {
		t.Errorf("hint %d %q, number %d", p, name, m.Number())
	}
}
