package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
)

// Copy is a place that may have the store's packs and manifests once more.
type Copy struct {
	Name string
	Open func(ctx context.Context) (target.Target, error) // called when something is wanted from it, once
}

// MendOptions say what mending does.
type MendOptions struct {
	Copies []Copy // asked in this order
	// Partly: packs that aren't in the store were never there, but are on a copy; those that are missing aren't missed.
	Partly bool
	// Report gets each object that was damaged or missing: From is the copy that it was put back from; empty: Err says why it wasn't. It may be nil, and is
	// called by one goroutine at a time.
	Report func(Mended)
	// Progress may be nil. It is called by one goroutine at a time.
	Progress func(done, total int64)
}

// Mended is what became of a damaged or missing object of the store.
type Mended struct {
	Object string
	From   string
	Err    error
}

// Lost tells whether no copy has the object. Where one could not be asked, it may have it.
func (m Mended) Lost() bool { return m.Err != nil && !chunkstore.Passing(m.Err) }

// MendResult is what Mend looked at and did.
type MendResult struct {
	Objects, Bytes int64 // that were read; bytes of packs
	Mended         int
	Lost           map[chunkstore.PackID]error // packs that no copy has whole, and what is wrong with them here
}

// Mend reads all packs and manifests of the store, and puts those that are damaged or missing back from copies that have them whole. A pack that is put in
// another's place was verified before, byte by byte, and has the same chunks. It may run beside anything else. An error means that it couldn't go on; what
// was mended stays so.
func (r *Repo) Mend(ctx context.Context, opts MendOptions) (MendResult, error) {
	m := &mender{repo: r, opts: opts, opened: make(map[string]target.Target), failed: make(map[string]error), res: MendResult{Lost: make(map[chunkstore.PackID]error)}}
	err := m.manifests(ctx)
	if err == nil {
		err = m.packs(ctx)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("mend the store: %w", err)
	}
	return m.res, err
}

// mender is one run of Mend.
type mender struct {
	repo *Repo
	opts MendOptions

	opening sync.Mutex
	opened  map[string]target.Target
	failed  map[string]error

	mu    sync.Mutex // guards the rest, and is held while Report or Progress runs
	total int64
	done  int64
	res   MendResult
}

// manifests mends those of complete snapshots.
func (m *mender) manifests(ctx context.Context) error {
	all, err := m.repo.Snapshots()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.State != index.StateComplete {
			continue
		}
		m.res.Objects++
		_, sum, err := m.repo.Manifest(ctx, s.ID)
		if err == nil && sum != s.ManifestSHA256 {
			err = fmt.Errorf("the manifest of snapshot %s: %w", s.Name, errManifestDiffers)
		}
		if err == nil {
			continue
		}
		if chunkstore.Passing(err) || errors.Is(err, ErrNewerFormat) {
			return err
		}
		done := m.manifest(ctx, s, err)
		if errors.Is(done.Err, errPutBack) {
			return done.Err
		}
		m.report(done)
	}
	return ctx.Err()
}

// manifest puts a manifest back that has the hash which the catalogue knows.
func (m *mender) manifest(ctx context.Context, s index.Snapshot, damage error) Mended {
	name := ManifestObject(s.ID)
	return m.fromCopies(ctx, name, damage, func(t target.Target) error {
		p, err := target.Get(ctx, t, name, MaxManifest)
		if err != nil {
			return err
		}
		if hashHex(p) != s.ManifestSHA256 {
			return errManifestDiffers
		}
		m.repo.upkeep.deleting.Lock() // a deleted snapshot's manifest must not come back
		defer m.repo.upkeep.deleting.Unlock()
		all, err := m.repo.Snapshots()
		if err != nil || !slices.ContainsFunc(all, func(o index.Snapshot) bool { return o.ID == s.ID }) {
			return err
		}
		return putBack(target.Put(ctx, m.repo.target, name, p))
	})
}

// packs mends those that the index has.
func (m *mender) packs(ctx context.Context) error {
	ids, err := m.repo.db.PackIDs()
	if err != nil {
		return err
	}
	list, err := m.repo.store.Packs(ctx)
	if err != nil {
		return err
	}
	here := make(map[chunkstore.PackID]int64, len(list))
	for _, p := range list {
		here[p.ID] = p.Size
	}
	if m.opts.Partly {
		ids = slices.DeleteFunc(ids, func(id chunkstore.PackID) bool { _, ok := here[id]; return !ok })
	}
	for _, id := range ids {
		m.total += here[id]
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.repo.cfg.Workers)
	for _, id := range ids {
		g.Go(func() error {
			size, ok := here[id]
			err := m.pack(gctx, id, ok)
			m.step(size)
			return err
		})
	}
	return g.Wait()
}

// pack verifies a pack, and mends it. One that isn't listed may still be open, and look whole.
func (m *mender) pack(ctx context.Context, id chunkstore.PackID, listed bool) error {
	damage := error(&chunkstore.CorruptError{Pack: id, Reason: "the pack is missing", Err: fs.ErrNotExist})
	if !listed {
		m.repo.store.Forget(id)
	} else {
		damage = m.repo.store.VerifyPack(ctx, id)
	}
	if err := ctx.Err(); err != nil || damage == nil {
		return err
	}
	if chunkstore.Passing(damage) || errors.Is(damage, chunkstore.ErrNewerFormat) {
		return damage
	}
	if gone, err := m.repo.pruned(id); gone || err != nil {
		return err
	}
	done := m.fromCopies(ctx, id.Object(), damage, func(t target.Target) error { return m.packFrom(ctx, t, id) })
	if err := ctx.Err(); err != nil {
		return err
	}
	if errors.Is(done.Err, errPutBack) {
		return done.Err
	}
	if done.Lost() {
		m.mu.Lock()
		m.res.Lost[id] = damage
		m.mu.Unlock()
	}
	m.report(done)
	return nil
}

// pruned tells whether nothing needs a pack any more.
func (r *Repo) pruned(id chunkstore.PackID) (bool, error) {
	ids, err := r.db.PackIDs()
	return err == nil && !slices.Contains(ids, id), err
}

// fromCopies asks copies for an object until put has succeeded with one.
func (m *mender) fromCopies(ctx context.Context, name string, damage error, put func(target.Target) error) Mended {
	done := Mended{Object: name, Err: damage}
	for _, c := range m.opts.Copies {
		t, err := m.open(ctx, c)
		if err == nil {
			err = put(t)
		}
		if err == nil {
			m.repo.log.WarnContext(ctx, "an object of the store was damaged or missing, and was put back", "object", name, "from", c.Name, "damage", damage)
			return Mended{Object: name, From: c.Name}
		}
		if errors.Is(err, errPutBack) {
			return Mended{Object: name, Err: err}
		}
		if !errors.Is(err, fs.ErrNotExist) || chunkstore.Passing(err) {
			done.Err = fmt.Errorf("%w; copy %s: %w", done.Err, c.Name, err)
		}
	}
	return done
}

func (m *mender) open(ctx context.Context, c Copy) (target.Target, error) {
	m.opening.Lock()
	defer m.opening.Unlock()
	if err := m.failed[c.Name]; err != nil {
		return nil, err
	}
	if t := m.opened[c.Name]; t != nil {
		return t, nil
	}
	t, err := c.Open(ctx)
	if err != nil {
		m.failed[c.Name] = err
		return nil, err
	}
	m.opened[c.Name] = t
	return t, nil
}

// packFrom puts a copy's pack in the place of the store's. It is verified as it lies in a file of ours: what is read from the copy a second time could be something else.
func (m *mender) packFrom(ctx context.Context, t target.Target, id chunkstore.PackID) error {
	obj, err := t.Open(ctx, id.Object())
	if err != nil {
		return err
	}
	defer obj.Close()
	f, err := newSpool(ctx, m.repo.cfg.State, obj)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.repo.store.VerifyObject(ctx, id, f); err != nil {
		return err
	}
	m.repo.upkeep.pruning.Lock() // so that it isn't removed while it is put
	defer m.repo.upkeep.pruning.Unlock()
	if gone, err := m.repo.pruned(id); gone || err != nil {
		return err
	}
	return putBack(m.repo.store.PutBack(ctx, id, f.source()))
}

// errPutBack says that what a copy has could not be put into the store, so that there is no use in going on: its disk is full, or broken.
var errPutBack = errors.New("a copy has it whole, but it can't be stored here")

func putBack(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errPutBack, err)
}

func (m *mender) report(done Mended) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if done.Err == nil {
		m.res.Mended++
	}
	if m.opts.Report != nil {
		m.opts.Report(done)
	}
}

func (m *mender) step(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += bytes
	m.res.Objects++
	m.res.Bytes += bytes
	if m.opts.Progress != nil {
		m.opts.Progress(m.done, m.total)
	}
}
