package snapshot

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// verifyAll verifies all complete snapshots.
func verifyAll(ctx context.Context, r *Repo, readData bool) ([]Problem, VerifyResult, error) {
	all, err := r.Snapshots()
	if err != nil {
		return nil, VerifyResult{}, err
	}
	var complete []index.Snapshot
	for _, s := range all {
		if s.State == index.StateComplete {
			complete = append(complete, s)
		}
	}
	var problems []Problem
	res, err := r.Verify(ctx, complete, VerifyOptions{ReadData: readData, Report: func(p Problem) { problems = append(problems, p) }})
	return problems, res, err
}

// checkWhole verifies everything and expects no problem.
func checkWhole(t *testing.T, r *Repo) {
	t.Helper()
	problems, _, err := verifyAll(t.Context(), r, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("problem: %s %s: %v", p.Snapshot, p.Path, p.Err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// history is a few snapshots and what they must hold, by id.
type history struct {
	vol    *fakeVolume
	snaps  []index.Snapshot
	models map[string]*fakeSource
}

// newHistory makes snapshots that share data and that differ.
func newHistory(t *testing.T, r *Repo, seed uint64, n int) *history {
	t.Helper()
	h := &history{vol: newFakeVolume(rand.New(rand.NewPCG(seed, 20))), models: map[string]*fakeSource{}}
	for i := range n {
		for range 12 {
			h.vol.step()
		}
		h.seal(t, r, i == 0)
	}
	return h
}

func (h *history) seal(t *testing.T, r *Repo, full bool) index.Snapshot {
	t.Helper()
	src := h.vol.barrier(full)
	s := seal(t, r, src)
	h.snaps = append(h.snaps, s)
	h.models[s.ID] = src
	return s
}

// check verifies the repository and compares every snapshot in its catalogue with its model.
func (h *history) check(t *testing.T, r *Repo) {
	t.Helper()
	checkWhole(t, r)
	all, err := r.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.State == index.StateComplete {
			checkSnapshot(t, r, s, h.models[s.ID])
			if want := testTags(h.models[s.ID]); !slices.Equal(s.Tags, want) {
				t.Errorf("the tags of %s are %q, and were %q", s.Name, s.Tags, want)
			}
		}
	}
}

func TestVerifyOfWhatIsWhole(t *testing.T) {
	r := newRepo(t)
	h := newHistory(t, r, rand.Uint64(), 4)
	h.check(t, r)
	var last VerifyProgress
	res, err := r.Verify(t.Context(), h.snaps, VerifyOptions{ReadData: true, Progress: func(p VerifyProgress) { last = p }})
	if err != nil || res.Snapshots != 4 || last.Bytes != last.TotalBytes || last.Bytes == 0 {
		t.Fatalf("%+v, progress %+v, %v", res, last, err)
	}
	chunks, bytes := int64(0), int64(0)
	err = r.Index().ForEachChunk(func(_ chunkstore.ID, l chunkstore.Location) error {
		chunks++
		bytes += int64(l.RawLen)
		return nil
	})
	// Seals leave no garbage here, so everything in the index is needed, and is read once.
	if err != nil || res.Chunks != chunks || res.Bytes != bytes {
		t.Errorf("%d chunks and %d bytes of %d and %d, %v", res.Chunks, res.Bytes, chunks, bytes, err)
	}
	light, err := r.Verify(t.Context(), h.snaps[1:2], VerifyOptions{})
	if err != nil || light.Bytes >= res.Bytes {
		t.Errorf("without data: %+v, %v", light, err)
	}
	pending, err := r.Begin("pending", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(t.Context(), []index.Snapshot{pending}, VerifyOptions{}); !errors.Is(err, ErrNotComplete) {
		t.Errorf("verify of a pending snapshot: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Verify(ctx, h.snaps, VerifyOptions{ReadData: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("verify that was cancelled: %v", err)
	}
}

// damages calls fn for each of many ways in which the files below dir can be damaged, and undoes each.
func damages(t *testing.T, r *rand.Rand, dir string, flips int, fn func(what string)) {
	t.Helper()
	for _, path := range filesBelow(t, dir) {
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		write := func(q []byte) { write(t, path, q) }
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		fn(name + " missing")
		for _, n := range []int{0, len(p) - 1, r.IntN(len(p))} {
			write(p[:n])
			fn(name + " cut")
		}
		write(append(bytes.Clone(p), 0))
		fn(name + " longer")
		for i := range flips {
			at := r.IntN(len(p))
			if i < 6 {
				at = []int{i, len(p) - 1 - i*20}[i%2]
			}
			q := bytes.Clone(p)
			q[at] ^= byte(1 + r.IntN(255))
			write(q)
			fn(name + " flipped")
		}
		write(p)
	}
}

// TestVerifyFindsWhatReadingFindsOut damages each file of a small store: whenever a snapshot can't be read as it was, Verify has
// said so, of that snapshot.
func TestVerifyFindsWhatReadingFindsOut(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	state := t.TempDir()
	r := openRepo(t, state)
	h := newHistory(t, r, seed, 3)
	closeRepo(t, r)
	broken, found := 0, 0
	damages(t, h.vol.r, filepath.Join(state, "store"), 10, func(what string) {
		r := openRepo(t, state)
		defer closeRepo(t, r)
		problems, _, err := verifyAll(t.Context(), r, true)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(problems) > 0 {
			found++
		}
		named := map[string]bool{}
		for _, p := range problems {
			named[p.Snapshot] = true
		}
		if len(problems) == 0 {
			t.Errorf("%s: not noticed", what)
		}
		for _, s := range h.snaps {
			if err := compareSnapshot(t.Context(), r, s, h.models[s.ID]); err != nil {
				broken++
				if !named[s.Name] {
					t.Errorf("%s: verify didn't predict of %s: %v", what, s.Name, err)
				}
			}
		}
	})
	if broken == 0 || found == 0 {
		t.Errorf("%d readings failed, %d damages were found", broken, found)
	}
}

// TestVerifyFindsDamageOfTheIndex does the same with the index, which may also refuse to be opened.
func TestVerifyFindsDamageOfTheIndex(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	state := t.TempDir()
	r := openRepo(t, state)
	h := newHistory(t, r, seed, 2)
	closeRepo(t, r)
	path := filepath.Join(state, "index.db")
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		q := bytes.Clone(p)
		at := h.vol.r.IntN(len(q))
		q[at] ^= byte(1 + h.vol.r.IntN(255))
		write(t, path, q)
		r, err := Open(t.Context(), Config{State: state})
		if err != nil {
			continue
		}
		problems, _, err := verifyAll(t.Context(), r, true)
		for _, s := range h.snaps {
			if rerr := compareSnapshot(t.Context(), r, s, h.models[s.ID]); rerr != nil && err == nil && len(problems) == 0 {
				t.Errorf("byte %d: not noticed: %v", at, rerr)
			}
		}
		closeRepo(t, r)
	}
	write(t, path, p)
}

func TestVerifyNamesFiles(t *testing.T) {
	state := t.TempDir()
	r := openRepo(t, state)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 21)))
	dir := v.make(500, tree.ModeDir|0o755)
	v.setName(v.inos[fakeRoot], "dir", dir.Ino)
	in := v.make(501, tree.ModeRegular|0o600)
	v.setName(dir, "broken", in.Ino)
	v.write(in, 0, 64, false)
	other := v.make(502, tree.ModeRegular|0o600)
	v.setName(dir, "intact", other.Ino)
	v.write(other, 0, 64, false)
	first := seal(t, r, v.barrier(true))
	v.write(other, 3, 1, false)
	seal(t, r, v.barrier(false))

	rec, _, err := view{nodes: r.nodes, root: mustRoot(t, r, first)}.record(t.Context(), in.Ino)
	if err != nil {
		t.Fatal(err)
	}
	var chunk chunkstore.ID
	err = r.nodes.Ascend(t.Context(), rec.Content, 1, func(e tree.Entry) error {
		seg, err := tree.DecodeSegment(e.Value)
		chunk = seg.Chunks()[0]
		return err
	})
	loc, ok, err2 := r.Index().Locate(chunk)
	if err != nil || err2 != nil || !ok {
		t.Fatal(err, err2, ok)
	}
	closeRepo(t, r)
	flip(t, filepath.Join(state, "store", "packs", loc.Pack.String()[:2], loc.Pack.String()+".pack"), int(loc.Offset)+20)

	r = openRepo(t, state)
	defer closeRepo(t, r)
	problems, _, err := verifyAll(t.Context(), r, true)
	if err != nil || len(problems) != 2 {
		t.Fatalf("%v, %v", problems, err)
	}
	for _, p := range problems {
		if p.Path != "dir/broken" || p.Snapshot == "" || !errors.Is(p.Err, chunkstore.ErrCorrupt) || !strings.Contains(p.Err.Error(), "1 chunks") {
			t.Errorf("problem %q %q: %v", p.Snapshot, p.Path, p.Err)
		}
	}
	if light, _, err := verifyAll(t.Context(), r, false); err != nil || len(light) != 0 {
		t.Errorf("without reading data: %v, %v", light, err)
	}
}

func mustRoot(t *testing.T, r *Repo, s index.Snapshot) tree.Root {
	t.Helper()
	root, err := r.readRoot(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestVerifyTellsAVanishedSnapshot(t *testing.T) {
	r := newRepo(t)
	h := newHistory(t, r, 22, 4)
	if err := r.Delete(t.Context(), h.snaps[1:2]); err != nil {
		t.Fatal(err)
	}
	h.check(t, r)
	if err := r.Index().Remove(h.snaps[2].ID); err != nil {
		t.Fatal(err)
	}
	problems, _, err := verifyAll(t.Context(), r, false)
	if err != nil || len(problems) != 2 {
		t.Fatalf("%v, %v", problems, err)
	}
	for _, p := range problems {
		if !errors.Is(p.Err, errVanished) {
			t.Errorf("%v", p.Err)
		}
	}
	if _, err := r.Prune(t.Context(), PruneOptions{}); !errors.Is(err, errUnknownManifest) {
		t.Errorf("prune: %v", err)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p[at] ^= 1
	write(t, path, p)
}
