package snapshot

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

func openReader(t testing.TB, r *Repo, snap index.Snapshot) *Reader {
	t.Helper()
	rd, err := r.Reader(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rd.Close() })
	return rd
}

func diffOf(t *testing.T, a, b *Reader) []Change {
	t.Helper()
	var out []Change
	err := Diff(t.Context(), a, b, DiffOptions{Ranges: true}, func(c Change) error {
		out = append(out, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// paths gives the model's paths: inode number to sorted paths.
func (s *fakeSource) paths() map[uint64][]string {
	out := map[uint64][]string{fakeRoot: {"."}}
	var walk func(dir uint64, prefix string)
	walk = func(dir uint64, prefix string) {
		for name, ino := range s.inos[dir].names {
			out[ino] = append(out[ino], prefix+name)
			if s.inos[ino].IsDir() {
				walk(ino, prefix+name+"/")
			}
		}
	}
	walk(fakeRoot, "")
	for _, p := range out {
		slices.Sort(p)
	}
	return out
}

// differingBlocks gives the blocks whose bytes differ, or that are data in one and a hole in the other, up to the greater end.
func differingBlocks(a, b *fakeInode) map[uint64]bool {
	out := map[uint64]bool{}
	for n := range maps.Keys(a.blocks) {
		if p, ok := b.blocks[n]; !ok || !bytes.Equal(p, a.blocks[n]) {
			out[n] = true
		}
	}
	for n := range maps.Keys(b.blocks) {
		if _, ok := a.blocks[n]; !ok {
			out[n] = true
		}
	}
	lo, hi := min(a.Size, b.Size), max(a.Size, b.Size)
	for n := uint64(lo) / BlockSize; lo < hi && n < blocksOf(hi); n++ {
		out[n] = true
	}
	return out
}

// modelAttrDiffer is what Change.Attr means.
func modelAttrDiffer(a, b *fakeInode) bool {
	x, y := a.Inode, b.Inode
	for _, in := range []*tree.Inode{&x, &y} {
		in.Ctime, in.Btime, in.Size, in.Nlink = tree.Time{}, tree.Time{}, 0, 0
		if in.IsDir() {
			in.Mtime = tree.Time{}
		}
		if len(in.Xattrs) == 0 {
			in.Xattrs = nil
		}
		in.Xattrs = slices.Clone(in.Xattrs)
		for i := range in.Xattrs {
			in.Xattrs[i].Value = append([]byte{}, in.Xattrs[i].Value...)
		}
	}
	return !reflect.DeepEqual(x, y)
}

// checkDiff compares what Diff says with what differs in the model. It may say too much only in segments that were written to in one of
// the epochs between.
func checkDiff(a, b *fakeSource, between []*fakeSource, got []Change) error {
	byIno := map[uint64][]Change{}
	for _, c := range got {
		byIno[c.Ino] = append(byIno[c.Ino], c)
	}
	pa, pb := a.paths(), b.paths()
	all := maps.Clone(pa)
	maps.Copy(all, pb)
	for ino := range all {
		x, y := a.inos[ino], b.inos[ino]
		if err := checkInodeDiff(x, y, pa[ino], pb[ino], byIno[ino], writtenSegments(between, ino)); err != nil {
			return fmt.Errorf("inode %d, %q -> %q, reported %+v: %w", ino, pa[ino], pb[ino], byIno[ino], err)
		}
		delete(byIno, ino)
	}
	for ino, c := range byIno {
		return fmt.Errorf("inode %d of neither: %+v", ino, c)
	}
	return nil
}

func checkInodeDiff(x, y *fakeInode, pa, pb []string, got []Change, mayMove func(seg uint64) bool) error {
	gone, come := without(pa, pb), without(pb, pa)
	same := x != nil && y != nil && x.Gen == y.Gen
	if !same {
		gone, come = pa, pb
	}
	var left, arrived []string
	var main *Change
	for i, c := range got {
		switch c.Kind {
		case Added:
			arrived = append(arrived, c.Path)
		case Removed:
			left = append(left, c.Path)
		case Renamed:
			arrived, left = append(arrived, c.Path), append(left, c.OldPath)
			main = &got[i]
		case Modified:
			if !slices.Contains(pa, c.Path) || !slices.Contains(pb, c.Path) {
				return fmt.Errorf("%s isn't in both", c.Path)
			}
			main = &got[i]
		}
	}
	slices.Sort(left)
	slices.Sort(arrived)
	if !slices.Equal(left, gone) || !slices.Equal(arrived, come) {
		return fmt.Errorf("gone %q, come %q", gone, come)
	}
	if !same {
		return nil
	}
	return checkModified(x, y, main, mayMove)
}

func checkModified(x, y *fakeInode, c *Change, mayMove func(seg uint64) bool) error {
	blocks, attr := differingBlocks(x, y), modelAttrDiffer(x, y)
	if c == nil {
		if len(blocks) > 0 || attr {
			return fmt.Errorf("not reported: %d blocks differ, attributes %v", len(blocks), attr)
		}
		return nil
	}
	if c.Attr != attr || c.Type != tree.TypeOf(y.Mode) || len(blocks) > 0 && !c.Content {
		return fmt.Errorf("%d blocks differ, attributes %v", len(blocks), attr)
	}
	told, bytes := map[uint64]bool{}, int64(0)
	for _, r := range c.Ranges {
		for n := uint64(r.Off) / BlockSize; n < blocksOf(r.Off+r.Len); n++ {
			told[n] = true
		}
		bytes += r.Len
	}
	if bytes != c.Bytes {
		return fmt.Errorf("ranges have %d bytes", bytes)
	}
	for n := range blocks {
		if !told[n] {
			return fmt.Errorf("block %d differs and isn't reported", n)
		}
	}
	for n := range told {
		if !blocks[n] && !mayMove(n/SegmentBlocks) {
			return fmt.Errorf("block %d is reported, and nothing in its segment was written to", n)
		}
	}
	return nil
}

// writtenSegments tells where a file was written to.
func writtenSegments(epochs []*fakeSource, ino uint64) func(seg uint64) bool {
	all, segs := false, map[uint64]bool{}
	for _, e := range epochs {
		d := e.dirty[ino]
		if d == nil {
			continue
		}
		all = all || d.content || d.fresh
		for b := range d.blocks {
			segs[b/SegmentBlocks] = true
		}
	}
	return func(seg uint64) bool { return all || segs[seg] }
}

// without gives what is in a and not in b, sorted.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func TestDiffTellsWhatDiffers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 31)))
	var models []*fakeSource
	var readers []*Reader
	for i := range 6 {
		for range 10 + v.r.IntN(40) {
			v.step()
		}
		src := v.barrier(i == 0)
		models, readers = append(models, src), append(readers, openReader(t, r, seal(t, r, src)))
	}
	changes := 0
	for i, a := range models {
		for j, b := range models {
			got := diffOf(t, readers[i], readers[j])
			if changes += len(got); i == j && len(got) > 0 {
				t.Fatalf("a snapshot differs from itself: %+v", got)
			}
			if !slices.IsSortedFunc(got, func(x, y Change) int { return strings.Compare(x.Path, y.Path) }) {
				t.Fatal("not sorted by path")
			}
			if err := checkDiff(a, b, models[min(i, j)+1:max(i, j)+1], got); err != nil {
				t.Fatalf("from %d to %d: %v", i, j, err)
			}
		}
	}
	if changes == 0 {
		t.Fatal("nothing differed")
	}
}
