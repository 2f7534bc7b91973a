package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// modelTree restores from the model itself.
type modelTree struct {
	*fakeSource
	bad func(ino uint64, off int64) error // says what can't be read; may be nil
}

func (m modelTree) Lookup(_ context.Context, dir uint64, name string) (tree.Dirent, error) {
	e, ok, err := m.Entry(context.Background(), dir, name)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	return e, err
}

func (m modelTree) ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error) {
	list, err := m.Entries(ctx, dir)
	slices.SortFunc(list, func(a, b tree.Dirent) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

func (m modelTree) EachXattr(ctx context.Context, ino uint64, fn func(tree.Xattr) error) error {
	in, err := m.Inode(ctx, ino)
	for i := 0; err == nil && i < len(in.Xattrs); i++ {
		err = fn(in.Xattrs[i])
	}
	return err
}

func (m modelTree) Open(_ context.Context, ino uint64) (TreeFile, error) {
	return modelFile{m, ino}, nil
}

type modelFile struct {
	m   modelTree
	ino uint64
}

func (f modelFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	in := f.m.inos[f.ino]
	for n := 0; n < len(p); {
		at := off + int64(n)
		if f.m.bad != nil {
			if err := f.m.bad(f.ino, at); err != nil {
				return n, err
			}
		}
		if at >= in.Size {
			return n, io.EOF
		}
		k := int(min(int64(BlockSize-at%BlockSize), int64(len(p)-n), in.Size-at))
		clear(p[n : n+k])
		if b := in.blocks[uint64(at)/BlockSize]; b != nil {
			copy(p[n:n+k], b[at%BlockSize:])
		}
		n += k
	}
	return len(p), nil
}

func (f modelFile) NextData(_ context.Context, off int64) (int64, int64, error) {
	return f.m.inos[f.ino].nextData(off)
}

func (f modelFile) Close() error { return nil }

// compareRestored compares a directory with the model, completely.
func compareRestored(dest string, want *fakeSource, fresh bool) error {
	seen := map[uint64]uint64{} // inode of the model: that of the destination
	for ino, paths := range want.paths() {
		for _, p := range paths {
			var st unix.Stat_t
			full := filepath.Join(dest, p)
			if err := unix.Lstat(full, &st); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			if first, ok := seen[ino]; ok && first != st.Ino {
				return fmt.Errorf("%s is not the same file as the others of %q", p, paths)
			}
			seen[ino] = st.Ino
			if err := compareRestoredInode(full, &st, want.inos[ino], fresh); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	count := 0
	err := filepath.WalkDir(dest, func(string, fs.DirEntry, error) error { count++; return nil })
	for _, p := range want.paths() {
		count -= len(p)
	}
	if count != 0 {
		return fmt.Errorf("%d entries too many: %v", count, err)
	}
	return nil
}

func compareRestoredInode(path string, st *unix.Stat_t, want *fakeInode, fresh bool) error {
	got := inodeOf(st)
	if got.Mode != want.Mode || got.UID != want.UID || got.GID != want.GID || got.Mtime != want.Mtime {
		return fmt.Errorf("mode %o, owner %d:%d, time %v, want %o, %d:%d, %v", got.Mode, got.UID, got.GID, got.Mtime, want.Mode, want.UID, want.GID, want.Mtime)
	}
	if !want.IsDir() && got.Nlink != want.Nlink {
		return fmt.Errorf("%d links, want %d", got.Nlink, want.Nlink)
	}
	xs, err := xattrsOf(path)
	if err != nil || len(xs) != len(want.Xattrs) {
		return fmt.Errorf("xattrs %v, want %v: %w", xs, want.Xattrs, err)
	}
	for i, x := range want.Xattrs {
		if xs[i].Name != x.Name || !bytes.Equal(xs[i].Value, x.Value) {
			return fmt.Errorf("xattr %v, want %v", xs[i], x)
		}
	}
	switch {
	case want.IsSymlink():
		if to, err := os.Readlink(path); err != nil || to != want.Target {
			return fmt.Errorf("link to %q, want %q: %w", to, want.Target, err)
		}
	case want.IsRegular():
		return compareRestoredFile(path, want, fresh)
	case !want.IsDir() && got.Rdev != want.Rdev:
		return fmt.Errorf("device %x, want %x", got.Rdev, want.Rdev)
	}
	return nil
}

// compareRestoredFile compares size, bytes and holes. Zeros may be a hole if fresh is false.
func compareRestoredFile(path string, want *fakeInode, fresh bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() != want.Size {
		return fmt.Errorf("size %d, want %d: %w", st.Size(), want.Size, err)
	}
	zero, p := make([]byte, BlockSize), make([]byte, BlockSize)
	for b := range blocksOf(want.Size) {
		off := int64(b) * BlockSize
		start, _, err := nextData(int(f.Fd()), off)
		hole := err != nil || start >= off+BlockSize
		block, data := want.blocks[b]
		if !data && hole {
			continue
		}
		if !data || hole && (fresh || !bytes.Equal(block, zero)) {
			return fmt.Errorf("block %d is a hole: %v, want %v", b, hole, !data)
		}
		n, err := f.ReadAt(p[:min(BlockSize, want.Size-off)], off)
		if err != nil || !bytes.Equal(p[:n], block[:n]) {
			return fmt.Errorf("block %d differs: %w", b, err)
		}
	}
	return nil
}

// posixACL is u::rwx, user 1234 r-x, g::r-x, mask r-x, o::r--, which are the mode 0754.
var posixACL = []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xd2, 4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
	0x10, 0, 5, 0, 255, 255, 255, 255, 0x20, 0, 4, 0, 255, 255, 255, 255}

// furnish adds what the random steps don't make, and takes out what no filesystem keeps.
func furnish(v *fakeVolume) {
	v.write(v.add(tree.ModeRegular|0o6755), 0, 3, false)
	v.add(tree.ModeFIFO | 0o620)
	v.add(tree.ModeSocket | 0o600)
	v.add(tree.ModeBlock | 0o640).Rdev = unix.Mkdev(8, 17)
	v.add(tree.ModeRegular | 0o754).Xattrs = []tree.Xattr{{Name: "system.posix_acl_access", Value: posixACL}, {Name: "user.empty", Value: []byte{}}}
	v.add(tree.ModeDir | 0o3754).Xattrs = []tree.Xattr{{Name: "system.posix_acl_access", Value: posixACL}, {Name: "system.posix_acl_default", Value: posixACL}}
	v.add(tree.ModeSymlink | 0o777).Target = "/etc/passwd"
	linked := v.add(tree.ModeSymlink | 0o777)
	linked.Target, linked.Nlink = "twice", 2
	v.setName(v.dir(), fmt.Sprintf("twice%d", v.clock), linked.Ino)
	v.link()
	for _, in := range v.inos {
		for i := range in.Xattrs {
			if in.Xattrs[i].Name == "system.posix_acl_access" {
				in.Mode = in.Mode&^0o777 | 0o754 // as a filesystem would
			}
			if x := &in.Xattrs[i]; len(x.Value) > 200 {
				x.Value = x.Value[:200]
				v.mark(in.Ino)
			}
		}
		if in.Mode&tree.ModeType == tree.ModeChar {
			in.Rdev &= 0xfffff
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners and devices need root")
	}
}

// TestRestoredTreeEqualsTheModel restores random snapshots to new places and over one another.
func TestRestoredTreeEqualsTheModel(t *testing.T) {
	needRoot(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 41)))
	var models []*fakeSource
	var readers []*Reader
	v.write(v.add(tree.ModeRegular|0o640), 3, 2*pieceSize/BlockSize+77, false)
	for i := range 3 {
		for range 40 {
			v.step()
		}
		furnish(v)
		src := v.barrier(i == 0)
		models, readers = append(models, src), append(readers, openReader(t, r, seal(t, r, src)))
	}
	inPlace := t.TempDir()
	for _, i := range []int{0, 1, 2, 0} {
		opts := RestoreOptions{Dest: inPlace, Delete: true, Warn: func(err error) { t.Error(err) }}
		dry := opts
		dry.DryRun = true
		said, err := Restore(t.Context(), readers[i], dry)
		if err != nil {
			t.Fatal(err)
		}
		did, err := Restore(t.Context(), readers[i], opts)
		if err != nil {
			t.Fatal(err)
		}
		if (said.Written == 0) != (did.Written == 0) || said.Files != did.Files || said.Removed != did.Removed {
			t.Errorf("a dry run said %+v, it was %+v", said, did)
		}
		if err := compareRestored(inPlace, models[i], false); err != nil {
			t.Fatalf("snapshot %d, in place: %v", i, err)
		}
	}
	for i, rd := range readers {
		dest := filepath.Join(t.TempDir(), "new")
		res, err := Restore(t.Context(), rd, RestoreOptions{Dest: dest, Workers: 3})
		if err == nil {
			err = compareRestored(dest, models[i], true)
		}
		if files, size := rd.Stats(); err != nil || res.Files != files || res.Bytes != size {
			t.Fatalf("snapshot %d: %+v: %v", i, res, err)
		}
	}
}

// plainModel is a volume with some files under known names.
func plainModel(t *testing.T, seed uint64, names ...string) (*fakeVolume, map[string]*fakeInode) {
	t.Helper()
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 42)))
	v.inos[fakeRoot].UID = uint32(os.Geteuid())
	files := map[string]*fakeInode{}
	for _, name := range names {
		in := v.make(v.newIno(), tree.ModeRegular|0o644)
		in.UID = uint32(os.Geteuid())
		in.GID = uint32(os.Getegid())
		v.write(in, 0, 100, false)
		v.setName(v.inos[fakeRoot], name, in.Ino)
		files[name] = in
	}
	return v, files
}

// TestInPlaceWritesOnlyWhatDiffers changes known blocks.
func TestInPlaceWritesOnlyWhatDiffers(t *testing.T) {
	v, files := plainModel(t, 1, "a", "b", "c")
	dest := t.TempDir()
	restore := func() RestoreResult {
		t.Helper()
		src := v.barrier(true)
		res, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest})
		if err != nil {
			t.Fatal(err)
		}
		if err := compareRestored(dest, src, false); err != nil {
			t.Fatal(err)
		}
		return res
	}
	restore()
	if res := restore(); res.Written != 0 {
		t.Errorf("nothing to do, and %+v", res)
	}
	for _, b := range []uint64{3, 4, 50} {
		p := bytes.Clone(files["b"].blocks[b])
		p[100] ^= 1
		files["b"].blocks[b] = p
	}
	delete(files["c"].blocks, 7)
	var inode unix.Stat_t
	if err := unix.Stat(filepath.Join(dest, "b"), &inode); err != nil {
		t.Fatal(err)
	}
	hole := int64(0)
	if slices.ContainsFunc(readFile(t, filepath.Join(dest, "c"))[7*BlockSize:8*BlockSize], func(b byte) bool { return b != 0 }) {
		hole = BlockSize
	}
	if res := restore(); res.Written != 3*BlockSize+hole {
		t.Errorf("wrote %d bytes, want %d", res.Written, 3*BlockSize+hole)
	}
	was := inode.Ino
	if err := unix.Stat(filepath.Join(dest, "b"), &inode); err != nil || inode.Ino != was {
		t.Errorf("the file was replaced, %v", err)
	}
}

// TestHostileNames takes trees that no volume can be.
func TestHostileNames(t *testing.T) {
	v, _ := plainModel(t, 2, "good")
	src := v.barrier(true)
	file := src.inos[fakeRoot].names["good"]
	loop := &fakeInode{Inode: tree.Inode{Ino: 77, Mode: tree.ModeDir | 0o755, Nlink: 2}, names: map[string]uint64{"up": 77, "root": fakeRoot}}
	src.inos[77] = loop
	outer := t.TempDir()
	dest := filepath.Join(outer, "x", "dest")
	hostile := []string{"../evil", "../../evil", "/tmp/evil", "..", ".", "", "a/b", "nul\x00"}
	for _, name := range hostile {
		src.inos[fakeRoot].names[name] = file
	}
	src.inos[fakeRoot].names["loop"] = 77
	_, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest, Delete: true})
	var failed *RestoreError
	if !errors.As(err, &failed) || failed.Count != len(hostile)+2 {
		t.Errorf("got %v", err)
	}
	var found []string
	if err := filepath.WalkDir(outer, func(p string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(outer, p)
		found = append(found, rel)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "x", "x/dest", "x/dest/good", "x/dest/loop"}; !slices.Equal(found, want) {
		t.Errorf("found %q", found)
	}
}

// TestForeignLinksAreNotWrittenThrough has files of others under the names of the snapshot's.
func TestForeignLinksAreNotWrittenThrough(t *testing.T) {
	v, files := plainModel(t, 3, "one", "two")
	files["two"].Nlink = 2
	v.setName(v.inos[fakeRoot], "two too", files["two"].Ino)
	src := v.barrier(true)
	outside, dest := filepath.Join(t.TempDir(), "precious"), t.TempDir()
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := os.Link(outside, filepath.Join(dest, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest}); err != nil {
		t.Fatal(err)
	}
	if err := compareRestored(dest, src, false); err != nil {
		t.Error(err)
	}
	if p := readFile(t, outside); string(p) != "precious" {
		t.Errorf("the file outside has %d bytes now", len(p))
	}
}

// TestSwappedLinks gives two linked inodes each other's names.
func TestSwappedLinks(t *testing.T) {
	v, files := plainModel(t, 4, "a1", "b1")
	root := v.inos[fakeRoot]
	for name, of := range map[string]string{"a2": "a1", "b2": "b1"} {
		files[of].Nlink = 2
		v.setName(root, name, files[of].Ino)
	}
	before := v.barrier(true)
	root.names["a1"], root.names["b1"] = root.names["b1"], root.names["a1"]
	after := v.barrier(true)
	dest := t.TempDir()
	for _, src := range []*fakeSource{before, after, before} {
		if _, err := Restore(t.Context(), modelTree{fakeSource: src}, RestoreOptions{Dest: dest}); err != nil {
			t.Fatal(err)
		}
		if err := compareRestored(dest, src, false); err != nil {
			t.Fatal(err)
		}
	}
}

var errBadBlock = fmt.Errorf("bad block: %w", chunkstore.ErrCorrupt)

// TestDamagedFileDoesNotLookWhole fails to read one segment of a file with two names, to a new and to an old place.
func TestDamagedFileDoesNotLookWhole(t *testing.T) {
	v, files := plainModel(t, 5, "bad", "good", "bad.damaged")
	files["bad"].Nlink = 2
	v.setName(v.inos[fakeRoot], "bad too", files["bad"].Ino)
	old := v.barrier(true)
	for _, in := range files {
		v.write(in, 0, 100, false)
	}
	src := v.barrier(true)
	damaged := modelTree{src, func(ino uint64, off int64) error {
		if ino == files["bad"].Ino && off/SegmentSize == 1 {
			return errBadBlock
		}
		return nil
	}}
	for _, inPlace := range []bool{false, true} {
		dest := t.TempDir()
		if inPlace {
			if _, err := Restore(t.Context(), modelTree{fakeSource: old}, RestoreOptions{Dest: dest}); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			_, err := Restore(t.Context(), damaged, RestoreOptions{Dest: dest})
			checkDamage(t, err, dest)
		}
		want := src.inos[files["bad"].Ino]
		got := readFile(t, filepath.Join(dest, "bad.damaged1"))
		all := make([]byte, want.Size)
		if _, err := (modelFile{modelTree{fakeSource: src}, want.Ino}).ReadAt(t.Context(), all, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:SegmentSize], all[:SegmentSize]) || !bytes.Equal(got[2*SegmentSize:], all[2*SegmentSize:]) {
			t.Error("not all that can be read was restored")
		}
		whole := maps.Clone(src.inos)
		root := *whole[fakeRoot]
		root.names = maps.Clone(root.names)
		delete(root.names, "bad")
		delete(root.names, "bad too")
		whole[fakeRoot] = &root
		if err := os.Remove(filepath.Join(dest, "bad.damaged1")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dest, root.Mtime.Time(), root.Mtime.Time()); err != nil {
			t.Fatal(err)
		}
		if err := compareRestored(dest, &fakeSource{inos: whole}, false); err != nil {
			t.Errorf("the others: %v", err)
		}
	}
}

func checkDamage(t *testing.T, err error, dest string) {
	t.Helper()
	var failed *RestoreError
	if !errors.As(err, &failed) || !errors.Is(err, chunkstore.ErrCorrupt) || failed.Count != 2 {
		t.Fatalf("got %v", err)
	}
	for _, p := range failed.Problems {
		if p.Kept != "bad.damaged1" || !strings.HasPrefix(p.Path, "bad") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v in %v", p, err)
		}
	}
	if r := failed.Problems[0].Ranges; !slices.Equal(r, []Range{{SegmentSize, SegmentSize}}) {
		t.Errorf("ranges %v", r)
	}
	for _, name := range []string{"bad", "bad too"} {
		if _, err := os.Lstat(filepath.Join(dest, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s looks whole: %v", name, err)
		}
	}
}
