package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

func openRepo(t testing.TB, state string) *Repo {
	t.Helper()
	r, err := Open(context.Background(), Config{State: state, Node: "node-1", CacheBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r.prints.smallFile = SegmentBlocks // files of models are small
	return r
}

func newRepo(t testing.TB) *Repo {
	t.Helper()
	r := openRepo(t, t.TempDir())
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// lastOf is the newest snapshot in the catalogue.
func lastOf(t testing.TB, r *Repo) index.Snapshot {
	t.Helper()
	all, err := r.Snapshots()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	return all[len(all)-1]
}

func seal(t testing.TB, r *Repo, src Source) index.Snapshot {
	t.Helper()
	snap, err := r.Begin("", BeginOptions{Epoch: src.Epoch(), Tags: testTags(src)})
	if err != nil {
		t.Fatal(err)
	}
	if snap, err = r.Seal(t.Context(), snap, src, nil); err != nil {
		t.Fatal(err)
	}
	return snap
}

// testTags are a snapshot's tags in tests.
func testTags(src Source) []string { return []string{fmt.Sprint("epoch-", src.Epoch()), "test"} }

// checkSnapshot compares a snapshot with the model, completely.
func checkSnapshot(t testing.TB, r *Repo, snap index.Snapshot, want *fakeSource) {
	t.Helper()
	if err := compareSnapshot(t.Context(), r, snap, want); err != nil {
		t.Fatalf("snapshot %s: %v", snap.Name, err)
	}
}

func compareSnapshot(ctx context.Context, r *Repo, snap index.Snapshot, want *fakeSource) error {
	rd, err := r.Reader(ctx, snap)
	if err != nil {
		return err
	}
	defer rd.Close()
	files, size := int64(0), int64(0)
	seen := 0
	err = rd.EachInode(ctx, func(in tree.Inode) error {
		seen++
		m := want.inos[in.Ino]
		if m == nil {
			return fmt.Errorf("inode %d was gone", in.Ino)
		}
		if in.IsRegular() {
			files, size = files+1, size+in.Size
		}
		return compareInode(ctx, rd, m)
	})
	if err != nil {
		return err
	}
	if seen != len(want.inos) {
		return fmt.Errorf("%d inodes, want %d", seen, len(want.inos))
	}
	if files != snap.Files || size != snap.Bytes {
		return fmt.Errorf("counts are %d files and %d bytes, want %d and %d", snap.Files, snap.Bytes, files, size)
	}
	return nil
}

func compareInode(ctx context.Context, rd *Reader, m *fakeInode) error {
	in, err := rd.Inode(ctx, m.Ino)
	if err != nil {
		return err
	}
	if err := rd.EachXattr(ctx, m.Ino, func(x tree.Xattr) error {
		in.Xattrs = append(in.Xattrs, tree.Xattr{Name: x.Name, Value: bytes.Clone(x.Value)})
		return nil
	}); err != nil {
		return err
	}
	if len(in.Xattrs) != len(m.Xattrs) {
		return fmt.Errorf("inode %d has %d extended attributes, want %d", m.Ino, len(in.Xattrs), len(m.Xattrs))
	}
	got, want := in, m.Inode
	got.Content, got.Blocks = tree.Ref{}, 0
	if len(want.Xattrs) == 0 {
		got.Xattrs, want.Xattrs = nil, nil
	}
	for i := range got.Xattrs {
		if !bytes.Equal(got.Xattrs[i].Value, want.Xattrs[i].Value) {
			return fmt.Errorf("inode %d: xattr %d differs", m.Ino, i)
		}
		got.Xattrs[i].Value = want.Xattrs[i].Value
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("inode %d is %+v, want %+v", m.Ino, got, want)
	}
	switch {
	case in.IsDir():
		return compareDir(ctx, rd, m)
	case in.IsRegular():
		return compareFile(ctx, rd, m)
	}
	return nil
}

func compareDir(ctx context.Context, rd *Reader, m *fakeInode) error {
	list, err := rd.ReadDir(ctx, m.Ino)
	if err != nil {
		return err
	}
	if len(list) != len(m.names) {
		return fmt.Errorf("directory %d has %d names, want %d", m.Ino, len(list), len(m.names))
	}
	for _, d := range list {
		if m.names[d.Name] != d.Ino {
			return fmt.Errorf("directory %d: %q is inode %d, want %d", m.Ino, d.Name, d.Ino, m.names[d.Name])
		}
		if one, err := rd.Lookup(ctx, m.Ino, d.Name); err != nil || one != d {
			return errors.Join(fmt.Errorf("look up %q: %v", d.Name, one), err)
		}
	}
	return nil
}

func compareFile(ctx context.Context, rd *Reader, m *fakeInode) error {
	if n, err := rd.Blocks(ctx, m.Ino); err != nil || n != int64(len(m.blocks))*8 {
		return fmt.Errorf("inode %d: %d blocks of 512, want %d: %v", m.Ino, n, len(m.blocks)*8, err)
	}
	for off := int64(0); ; {
		s1, e1, err1 := m.nextData(off)
		s2, e2, err2 := rd.NextData(ctx, m.Ino, off)
		if s1 != s2 || e1 != e2 || err1 != err2 {
			return errors.Join(fmt.Errorf("inode %d: data after %d is %d-%d, want %d-%d, %v", m.Ino, off, s2, e2, s1, e1, err1), err2)
		}
		if err1 != nil {
			break
		}
		hole, err := rd.NextHole(ctx, m.Ino, s1)
		if hole != e1 || err != nil {
			return errors.Join(fmt.Errorf("inode %d: hole after %d at %d, want %d", m.Ino, s1, hole, e1), err)
		}
		if err := compareRange(ctx, rd, m, s1, e1); err != nil {
			return err
		}
		off = e1
	}
	return nil
}

// compareRange compares a range of data, and some of the hole on each side.
func compareRange(ctx context.Context, rd *Reader, m *fakeInode, start, end int64) error {
	start, end = max(0, start-1000), min(m.Size, end+1000)
	got := bytes.Repeat([]byte{0xee}, int(end-start))
	if n, err := rd.ReadAt(ctx, m.Ino, got, start); n != len(got) || err != nil {
		return fmt.Errorf("inode %d: read %d of %d bytes at %d: %w", m.Ino, n, len(got), start, err)
	}
	want := make([]byte, len(got))
	for b := uint64(start) / BlockSize; int64(b)*BlockSize < end; b++ {
		p := m.blocks[b]
		if p == nil {
			continue
		}
		at := int64(b)*BlockSize - start
		if at < 0 {
			copy(want, p[-at:])
		} else {
			copy(want[at:], p)
		}
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("inode %d: wrong bytes in %d-%d", m.Ino, start, end)
	}
	return nil
}

func TestSnapshotsEqualTheModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 3)))
	state := t.TempDir()
	r := openRepo(t, state)
	var snaps []index.Snapshot
	var models []*fakeSource
	for i := range 25 {
		for range 1 + v.r.IntN(60) {
			v.step()
		}
		src := v.barrier(i == 0 || v.r.IntN(8) == 0)
		snaps = append(snaps, seal(t, r, src))
		models = append(models, src)
		if !slices.Equal(src.releases, []bool{true}) {
			t.Fatalf("released %v", src.releases)
		}
		checkSnapshot(t, r, snaps[i], src)
		if v.r.IntN(6) == 0 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = openRepo(t, state)
		}
	}
	for i := range snaps {
		checkSnapshot(t, r, snaps[i], models[i])
	}
	checkChain(t, r, snaps)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkChain checks that each manifest names its snapshot's root and the hash of the manifest before.
func checkChain(t *testing.T, r *Repo, snaps []index.Snapshot) {
	t.Helper()
	prev := ""
	for i, s := range snaps {
		m, sum, err := r.Manifest(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if sum != s.ManifestSHA256 || m.ParentManifestSHA256 != prev || m.ChecksumSHA256 != s.Root.String() || m.StoredBytes != s.StoredBytes {
			t.Fatalf("manifest %d doesn't fit: %+v", i, m)
		}
		prev = sum
	}
}

func TestEqualRewriteGivesTheSameContent(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 2)))
	in := v.add(tree.ModeRegular | 0o600)
	v.write(in, 0, 500, false)
	v.write(in, 700, 3, false)
	first := seal(t, r, v.barrier(true))
	v.write(in, 17, 1, false)
	v.write(in, 99, 2, false)
	second := seal(t, r, v.barrier(false))
	was := content(t, r, second, in.Ino)
	if was.Equal(content(t, r, first, in.Ino)) {
		t.Fatal("a change left the content as it was")
	}
	v.write(in, 0, 500, true)
	v.write(in, 700, 3, true)
	src := v.barrier(false)
	third := seal(t, r, src)
	if !content(t, r, third, in.Ino).Equal(was) {
		t.Fatal("an equal rewrite changed the tree")
	}
	if third.StoredBytes > 4096 {
		t.Fatalf("an equal rewrite stored %d bytes", third.StoredBytes)
	}
	checkSnapshot(t, r, third, src)
	empty := v.barrier(false)
	if fourth := seal(t, r, empty); fourth.Root != third.Root || empty.read != 0 {
		t.Fatalf("an epoch without changes gave another root, or read %d bytes", empty.read)
	}
}

// TestMarksBeyondTheEnd: a file became shorter, to a whole number of segments, and several places beyond its new end are marked.
func TestMarksBeyondTheEnd(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 6)))
	in := v.add(tree.ModeRegular | 0o600)
	v.write(in, 0, SegmentBlocks+20, false)
	seal(t, r, v.barrier(true))
	v.write(in, SegmentBlocks-2, 1, false)
	for b := range uint64(4) {
		v.write(in, SegmentBlocks+4*b, 1, false)
	}
	d := v.mark(in.Ino)
	in.Size = SegmentBlocks*BlockSize - 1000
	for b := uint64(SegmentBlocks); b < SegmentBlocks+20; b++ {
		delete(in.blocks, b)
	}
	v.zeroTail(in)
	if len(d.blocks) != 5 {
		t.Fatalf("%d marks", len(d.blocks))
	}
	src := v.barrier(false)
	checkSnapshot(t, r, seal(t, r, src), src)
}

func content(t *testing.T, r *Repo, snap index.Snapshot, ino uint64) tree.Ref {
	t.Helper()
	rd, err := r.Reader(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	in, err := rd.Inode(t.Context(), ino)
	if err != nil {
		t.Fatal(err)
	}
	return in.Content
}

func TestFullSealsOfEqualVolumesHaveEqualRoots(t *testing.T) {
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 4)))
	for range 150 {
		v.step()
	}
	src := v.barrier(true)
	a := seal(t, newRepo(t), src)
	again := &fakeSource{vol: v, epoch: src.epoch, full: true, inos: src.inos, done: map[uint64]bool{}}
	if b := seal(t, newRepo(t), again); a.Root != b.Root {
		t.Fatal("two full seals of one volume differ")
	}
}

func TestIncrementalReadsDirtyBlocksOnly(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 5)))
	in := v.add(tree.ModeRegular | 0o600)
	v.write(in, 0, 2000, false)
	seal(t, r, v.barrier(true))
	for i := range 12 {
		for range 10 {
			v.write(in, v.r.Uint64N(200), 1, false) // many rounds on few segments: whole again now and then
		}
		src := v.barrier(false)
		dirty := int64(len(src.dirty[in.Ino].blocks)) * BlockSize
		snap := seal(t, r, src)
		if src.read != dirty || snap.DirtyBytes != dirty || snap.Kind != index.KindIncremental {
			t.Fatalf("round %d: read %d bytes, %d said to be dirty, of %d", i, src.read, snap.DirtyBytes, dirty)
		}
		checkSnapshot(t, r, snap, src)
	}
}

func TestFailedSealIsPartOfTheNext(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 6)))
	for range 100 {
		v.step()
	}
	seal(t, r, v.barrier(true))
	boom := errors.New("disk on fire")
	for n := 0; ; n += 1 + n/5 {
		v.step()
		src := v.barrier(false)
		calls := 0
		src.fail = func(string) error {
			if calls++; calls > n {
				return boom
			}
			return nil
		}
		snap, err := r.Begin("", BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		snap, err = r.Seal(t.Context(), snap, src, func(Progress) {})
		if err == nil {
			checkSnapshot(t, r, snap, &fakeSource{vol: v, inos: src.inos, done: map[uint64]bool{}})
			break
		}
		if !errors.Is(err, boom) || !slices.Equal(src.releases, []bool{false}) || snap.State != index.StateFailed {
			t.Fatalf("call %d: %v, released %v, state %s", n, err, src.releases, snap.State)
		}
	}
	checkNoStrayPacks(t, r)
}

// checkNoStrayPacks checks that the index knows chunks in every pack of the store.
func checkNoStrayPacks(t *testing.T, r *Repo) {
	t.Helper()
	used := map[chunkstore.PackID]bool{}
	err := r.Index().ForEachChunk(func(_ chunkstore.ID, l chunkstore.Location) error {
		used[l.Pack] = true
		return nil
	})
	packs, err2 := r.Store().Packs(t.Context())
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for _, p := range packs {
		if !used[p.ID] {
			t.Errorf("pack %s of a failed seal was left behind", p.ID)
		}
	}
}

// A seal that comes before an older one would miss what changed in that one's epoch.
func TestSealsOutOfTurnAreRefused(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(9, 9)))
	var snaps []index.Snapshot
	var srcs []*fakeSource
	for i := range 5 {
		v.write(v.add(tree.ModeRegular|0o600), 0, 3, false)
		srcs = append(srcs, v.barrier(i == 0))
		snap, err := r.Begin("", BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		snaps = append(snaps, snap)
	}
	seal := func(i int) error {
		snap, err := r.Seal(t.Context(), snaps[i], srcs[i], nil)
		if err == nil {
			err = compareSnapshot(t.Context(), r, snap, srcs[i])
		}
		return err
	}
	if err := seal(4); !errors.Is(err, errNotItsTurn) || !slices.Equal(srcs[4].releases, []bool{false}) {
		t.Errorf("before older ones: %v, released %v", err, srcs[4].releases)
	}
	if err := r.Abandon(snaps[3], io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := seal(i); err != nil {
			t.Errorf("snapshot %d: %v", i, err)
		}
	}
	if _, err := r.Seal(t.Context(), snaps[1], srcs[1], nil); !errors.Is(err, errNotBegun) {
		t.Errorf("sealing twice: %v", err)
	}
	var states []string
	list, err := r.Snapshots()
	for _, s := range list {
		states = append(states, s.State)
	}
	want := []string{index.StateComplete, index.StateComplete, index.StateComplete, index.StateFailed, index.StateFailed}
	if err != nil || !slices.Equal(states, want) || list[2].Parent != list[1].ID {
		t.Errorf("catalogue: %v %v", list, err)
	}
}

func TestSealBesideAnotherIsRefused(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(9, 10)))
	v.write(v.add(tree.ModeRegular|0o600), 0, 3, false)
	first, second := v.barrier(true), v.barrier(false)
	a, err := r.Begin("a", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Begin("b", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var inside error
	src := &besideSource{fakeSource: first, once: sync.OnceFunc(func() { _, inside = r.Seal(t.Context(), b, second, nil) })}
	if _, err := r.Seal(t.Context(), a, src, nil); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inside, errNotItsTurn) {
		t.Errorf("while another runs: %v", inside)
	}
}

// besideSource does something in the middle of its seal.
type besideSource struct {
	*fakeSource
	once func()
}

func (s *besideSource) Inode(ctx context.Context, ino uint64) (tree.Inode, error) {
	s.once()
	return s.fakeSource.Inode(ctx, ino)
}

func TestParentDeletedBeforeItsChildIsSealed(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(9, 11)))
	first := seal(t, r, v.barrier(true))
	v.step()
	second := seal(t, r, v.barrier(false))
	v.step()
	src := v.barrier(false)
	rd, err := r.Reader(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Index().Remove(second.ID, first.ID); err != nil {
		t.Fatal(err)
	}
	if roots := r.pinnedRoots(); len(roots) != 1 || roots[0] != first.Root {
		t.Errorf("pinned: %v", roots)
	}
	if err := rd.Close(); err != nil || len(r.pinnedRoots()) != 0 {
		t.Errorf("pinned after Close: %v, %v", r.pinnedRoots(), err)
	}
	if _, err := r.Reader(t.Context(), first); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("reading a deleted snapshot: %v", err)
	}
	snap, err := r.Begin("", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seal(t.Context(), snap, src, nil); !errors.Is(err, errParentGone) {
		t.Errorf("sealing relative to a deleted snapshot: %v", err)
	}
	full := v.barrier(true)
	checkSnapshot(t, r, seal(t, r, full), full)
}

func TestPendingIsDroppedAndTheNextSealIsRight(t *testing.T) {
	state := t.TempDir()
	r := openRepo(t, state)
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 7)))
	for range 80 {
		v.step()
	}
	seal(t, r, v.barrier(true))
	if _, err := r.Begin("lost", BeginOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = openRepo(t, state)
	defer r.Close()
	if s := lastOf(t, r); s.Name != "lost" || s.State != index.StateFailed || s.Error == "" {
		t.Fatalf("%+v", s)
	}
	v.step()
	src := v.barrier(false)
	checkSnapshot(t, r, seal(t, r, src), src)
}
