package epoch

import (
	"bytes"
	"os"
	"testing"

	"graphvol/index"
)

// marksOf makes an epoch with marks of every kind, whose owner ends without a word.
func marksOf(t *testing.T, dir string) {
	t.Helper()
	e, err := Create(dir, 7)
	if err != nil {
		t.Fatal(err)
	}
	a := e.Inode(11, 5)
	a.MarkAttr()
	a.MarkBlocks(3, 2)
	a.MarkBlocks(60, 10)       // into slot 0
	a.MarkBlocks(5000, 100)    // slot 2
	a.MarkBlocks(20_000, 9000) // a run
	d := e.Inode(12, 6)
	d.MarkName("name")
	d.MarkAttr()
	e.Inode(12, 8) // the number is used again
	e.Inode(13, 0).MarkContent()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// lacks tells what of marksOf isn't known to be dirty.
func lacks(e *Epoch) string {
	a, d, c := e.Find(11), e.Find(12), e.Find(13)
	whole := index.DirtyContent | index.DirtyFresh
	switch {
	case a == nil || d == nil || c == nil:
		return "an inode"
	case !a.has(index.DirtyAttr) || !d.has(index.DirtyAttr):
		return "attributes"
	case !d.DirtyName("name"):
		return "a name"
	case d.Flags()&whole == 0 || c.Flags()&whole == 0:
		return "a flag"
	case a.Gen() != 0 && a.Gen() != 5 || d.Gen() != 0 && d.Gen() != 8:
		return "the gen"
	}
	for _, r := range [][2]uint64{{3, 5}, {60, 70}, {5000, 5100}, {20_000, 29_000}} {
		for b := r[0]; b < r[1]; b++ {
			if !a.Dirty(b, 1) {
				return "a block"
			}
		}
	}
	return ""
}

// TestFlippedMarks flips every byte of the files: what was dirty is still known to be, or the damage is told.
func TestFlippedMarks(t *testing.T) {
	dir := t.TempDir()
	marksOf(t, dir)
	if e, err := Load(dir, 7); err != nil || e.Damaged()+e.Doubtful() > 0 || lacks(e) != "" || e.Find(11).Dirty(80, 1) {
		t.Fatalf("undamaged: %v, lacks %s", err, lacks(e))
	}
	whole := map[string][]byte{}
	for _, path := range []string{bitsPath(dir, 7), namesPath(dir, 7)} {
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole[path] = p
	}
	for path, p := range whole {
		for at := range len(bytes.TrimRight(p, "\x00")) {
			for other, p := range whole { // loading may have written to both
				if err := os.WriteFile(other, p, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			q := bytes.Clone(p)
			q[at] ^= 1 << (at % 8)
			if at%3 == 0 {
				q[at] = ^p[at]
			}
			if err := os.WriteFile(path, q, 0o600); err != nil {
				t.Fatal(err)
			}
			e, err := Load(dir, 7)
			if err != nil {
				continue
			}
			if what := lacks(e); what != "" && e.Damaged() == 0 && e.Durable() {
				t.Errorf("%s, byte %d: %s is not known any more", path, at, what)
			}
			e.Close()
		}
	}
}

// TestMarksWithoutSums: files of an earlier version are loaded as they are.
func TestMarksWithoutSums(t *testing.T) {
	dir := t.TempDir()
	marksOf(t, dir)
	p, err := os.ReadFile(bitsPath(dir, 7))
	if err != nil {
		t.Fatal(err)
	}
	p[28] &^= flagSums
	clear(p[cell+88 : 2*cell])
	if err := os.WriteFile(bitsPath(dir, 7), p, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Load(dir, 7)
	if err != nil || e.Damaged()+e.Doubtful() > 0 || lacks(e) != "" || e.Find(11).Dirty(80, 1) {
		t.Errorf("%v, lacks %s", err, lacks(e))
	}
}
