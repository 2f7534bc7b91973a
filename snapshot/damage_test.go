package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

func filesBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestFlippedBytesAreNeverServed changes bytes of the packs: every read gives an error of the corruption class, or what was there.
func TestFlippedBytesAreNeverServed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	state := t.TempDir()
	r := openRepo(t, state)
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 10)))
	for range 60 {
		v.step()
	}
	first := v.barrier(true)
	a := seal(t, r, first)
	for range 30 {
		v.step()
	}
	second := v.barrier(false)
	b := seal(t, r, second)
	closeRepo(t, r)
	packs := filesBelow(t, filepath.Join(state, "store", "packs"))
	hits := 0
	for range 60 {
		pack := packs[v.r.IntN(len(packs))]
		p, err := os.ReadFile(pack)
		if err != nil {
			t.Fatal(err)
		}
		at, flip := v.r.IntN(len(p)), byte(1+v.r.IntN(255))
		p[at] ^= flip
		write(t, pack, p)
		r := openRepo(t, state)
		for snap, model := range map[*index.Snapshot]*fakeSource{&a: first, &b: second} {
			if err := compareSnapshot(t.Context(), r, *snap, model); err != nil {
				hits++
				if !errors.Is(err, chunkstore.ErrCorrupt) && !errors.Is(err, chunkstore.ErrNewerFormat) {
					t.Errorf("byte %d of %s: %v", at, filepath.Base(pack), err)
				}
			}
		}
		closeRepo(t, r)
		p[at] ^= flip
		write(t, pack, p)
	}
	if hits == 0 {
		t.Error("no flipped byte was noticed")
	}
}

func write(t *testing.T, path string, p []byte) {
	t.Helper()
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func closeRepo(t *testing.T, r *Repo) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// errPower is what a failing target returns.
var errPower = errors.New("power is gone")

// failingTarget fails every operation that writes, from the n-th on.
type failingTarget struct {
	target.Local
	left int
}

// Put goes by way of Create.
func (f *failingTarget) Put(ctx context.Context, name string, src target.Source, _ target.PutOptions) error {
	return targettest.PutByUpload(ctx, f, name, src)
}

func (f *failingTarget) Create(ctx context.Context) (target.Upload, error) {
	u, err := f.Local.Create(ctx)
	return &failingUpload{u, f}, err
}

func (f *failingTarget) spend() error {
	if f.left--; f.left < 0 {
		return errPower
	}
	return nil
}

type failingUpload struct {
	target.Upload
	f *failingTarget
}

func (u *failingUpload) Commit(ctx context.Context, name string) error {
	if err := u.f.spend(); err != nil {
		return err
	}
	return u.Upload.Commit(ctx, name)
}

// TestCrashBetweenPacksManifestAndIndex stops a seal at each of its durable steps, and opens the state anew.
func TestCrashBetweenPacksManifestAndIndex(t *testing.T) {
	for steps := range 3 {
		state := t.TempDir()
		r := openRepo(t, state)
		v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 11)))
		for range 50 {
			v.step()
		}
		model := v.barrier(true)
		good := seal(t, r, model)
		v.step()
		v.write(v.add(tree.ModeRegular|0o600), 0, 10, false)
		src := v.barrier(false)
		snap, err := r.Begin("crashed", BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		crash(t, r, snap, src, steps)
		closeRepo(t, r)

		r = openRepo(t, state)
		if s := lastOf(t, r); s.State != index.StateFailed || s.Error == "" {
			t.Fatalf("after %d steps: %+v", steps, s)
		}
		checkSnapshot(t, r, good, model)
		src.Release(false)
		v.step()
		again := v.barrier(false)
		next := seal(t, r, again)
		if next.Parent != good.ID {
			t.Errorf("after %d steps: the next snapshot's parent is %s", steps, next.Parent)
		}
		checkSnapshot(t, r, next, again)
		checkSnapshot(t, r, good, model)
		closeRepo(t, r)
	}
}

// crash does the first steps of a seal: 0 nothing durable, 1 packs, 2 packs and manifest.
func crash(t *testing.T, r *Repo, snap index.Snapshot, src *fakeSource, steps int) {
	t.Helper()
	parent, _, err := r.Newest()
	if err != nil {
		t.Fatal(err)
	}
	w := r.Store().NewWriter(t.Context())
	defer w.Close()
	s := newSealer(t.Context(), r, src, w)
	if s.parent, err = r.readRoot(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	root, err := s.run(false)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Root, err = w.Put(root.Encode()); err != nil || steps == 0 {
		return
	}
	written, err := w.Finish()
	if err == nil && steps > 1 {
		_, err = r.putManifest(t.Context(), snap, parent, written)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTargetErrorsFailTheSealAlone fails each write to the target in turn.
func TestTargetErrorsFailTheSealAlone(t *testing.T) {
	dir, err := target.OpenDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	ft := &failingTarget{Local: dir, left: 1 << 30}
	r, err := Open(t.Context(), Config{State: t.TempDir(), Target: ft})
	if err != nil {
		t.Fatal(err)
	}
	defer closeRepo(t, r)
	v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 12)))
	for range 40 {
		v.step()
	}
	model := v.barrier(true)
	good := seal(t, r, model)
	for n := 0; ; n++ {
		v.write(v.add(tree.ModeRegular|0o600), 0, 4, false)
		src := v.barrier(false)
		snap, err := r.Begin("", BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ft.left = n
		snap, err = r.Seal(t.Context(), snap, src, nil)
		ft.left = 1 << 30
		checkSnapshot(t, r, good, model)
		if err == nil {
			checkSnapshot(t, r, snap, src)
			break
		}
		if !errors.Is(err, errPower) || !strings.Contains(snap.Error, "power is gone") {
			t.Fatalf("write %d: %v", n, err)
		}
		checkNoStrayPacks(t, r)
	}
}
