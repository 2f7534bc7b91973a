package snapshot

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
	"graphvol/snapshot/tree"
)

// cutTarget fails every operation from the n-th on, as if the process had died.
type cutTarget struct {
	target.Local
	mu   sync.Mutex
	left int
}

func (c *cutTarget) spend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left < 0 {
		return errPower
	}
	return nil
}

func (c *cutTarget) set(left int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = left
}

func (c *cutTarget) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left < 0
}

// Put goes by way of Create.
func (c *cutTarget) Put(ctx context.Context, name string, src target.Source, _ target.PutOptions) error {
	return targettest.PutByUpload(ctx, c, name, src)
}

func (c *cutTarget) Create(ctx context.Context) (target.Upload, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	u, err := c.Local.Create(ctx)
	return &cutUpload{u, c}, err
}

func (c *cutTarget) Open(ctx context.Context, name string) (target.Object, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.Local.Open(ctx, name)
}

func (c *cutTarget) List(ctx context.Context, prefix string) ([]target.Info, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.Local.List(ctx, prefix)
}

func (c *cutTarget) Remove(ctx context.Context, names ...string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.Local.Remove(ctx, names...)
}

type cutUpload struct {
	target.Upload
	c *cutTarget
}

func (u *cutUpload) Write(p []byte) (int, error) {
	if err := u.c.spend(); err != nil {
		return 0, err
	}
	return u.Upload.Write(p)
}

func (u *cutUpload) Commit(ctx context.Context, name string) error {
	if err := u.c.spend(); err != nil {
		return errors.Join(err, u.Upload.Abort())
	}
	return u.Upload.Commit(ctx, name)
}

// TestCrashWhilePruningOrDeleting ends the target's work at each of its operations in turn.
func TestCrashWhilePruningOrDeleting(t *testing.T) {
	for n, ended := 0, true; ended; n++ {
		state := t.TempDir()
		r := openRepo(t, state)
		h := sparseHistory(t, r)
		h.vol.noise(h.vol.add(tree.ModeRegular|0o600), 0, 40)
		h.seal(t, r, false)
		closeRepo(t, r)

		dir, err := target.OpenDir(filepath.Join(state, "store"))
		if err != nil {
			t.Fatal(err)
		}
		cut := &cutTarget{Local: dir, left: 1000}
		if r, err = Open(t.Context(), Config{State: state, Target: cut}); err != nil {
			t.Fatal(err)
		}
		cut.set(n)
		err = r.Delete(t.Context(), h.snaps[:1])
		if err == nil {
			_, err = r.Prune(t.Context(), PruneOptions{})
		}
		if ended = cut.ended(); !ended && err != nil {
			t.Fatal(err)
		}
		closeRepo(t, r)

		r = openRepo(t, state)
		h.check(t, r)
		if err := r.Delete(t.Context(), h.snaps[:1]); err != nil && !errors.Is(err, ErrNoSnapshot) {
			t.Fatal(err)
		}
		prune(t, r)
		h.check(t, r)
		checkNoStrayPacks(t, r)
		if packs, _ := storeBytes(t, r); packs > 1_600_000 {
			t.Errorf("after %d operations: %d bytes are left", n, packs)
		}
		closeRepo(t, r)
	}
}

// unsynced is a target whose removed manifests come back with a power cut, until it is asked to make removals durable.
type unsynced struct {
	target.Local
	removed map[string][]byte
}

func (u *unsynced) Remove(ctx context.Context, names ...string) error {
	for _, name := range names {
		if p, err := target.Get(ctx, u.Local, name, 1<<20); err == nil {
			u.removed[name] = p
		}
	}
	return u.Local.Remove(ctx, names...)
}

func (u *unsynced) SyncRemoved(context.Context, string) error {
	clear(u.removed)
	return nil
}

// TestManifestsComeBack: after a power cut the manifests of deleted snapshots may be there again, of snapshots that no later one
// names as its parent too; they must not look like those of lost ones.
func TestManifestsComeBack(t *testing.T) {
	state := t.TempDir()
	dir, err := target.OpenDir(filepath.Join(state, "store"))
	if err != nil {
		t.Fatal(err)
	}
	tg := &unsynced{dir, map[string][]byte{}}
	r, err := Open(t.Context(), Config{State: state, Target: tg})
	if err != nil {
		t.Fatal(err)
	}
	defer closeRepo(t, r)
	h := newHistory(t, r, 1, 4)
	for n := 3; n > 0; n-- {
		if err := r.Delete(t.Context(), h.snaps[n:n+1]); err != nil {
			t.Fatal(err)
		}
	}
	if len(tg.removed) == 0 {
		t.Fatal("no manifest comes back: nothing is tested")
	}
	for name, p := range tg.removed {
		if err := target.Put(t.Context(), dir, name, p); err != nil {
			t.Fatal(err)
		}
	}
	h.check(t, r)
	prune(t, r)
}

// countdown is a context that ends at the n-th look at it.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestPruneThatIsCancelled stops it at many places, also between the chunks that the index forgets.
func TestPruneThatIsCancelled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRepo(t)
	h := newHistory(t, r, seed, 1)
	for n, stopped := int64(0), true; stopped; n += 1 + n/3 {
		h.vol.noise(h.vol.add(tree.ModeRegular|0o600), 0, 40)
		h.vol.step()
		h.seal(t, r, false)
		if err := r.Delete(t.Context(), h.snaps[len(h.snaps)-2:len(h.snaps)-1]); err != nil {
			t.Fatal(err)
		}
		ctx := &countdown{Context: t.Context()}
		ctx.left.Store(n)
		p := &pruner{repo: r, marker: r.newMarker(), batch: 1 + int(n%3)}
		err := p.run(ctx)
		if stopped = err != nil; stopped && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		h.check(t, r)
	}
	prune(t, r)
	h.check(t, r)
	checkNoStrayPacks(t, r)
}
