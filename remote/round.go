package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
)

const (
	// noteEvery bounds how many objects are put again if the process dies.
	noteEvery = 64
	// restarts bounds how often a prune may disturb a round.
	restarts = 10
)

// Done is what a round has done.
type Done struct {
	Packs     int64 // that were put
	Bytes     int64 // of those and of manifests
	Snapshots int   // that the remote has now
	Removed   int   // objects
	Repaired  int   // objects that are on all their targets again
	Degraded  int   // objects that are not
}

// Sync does a round: afterwards the remote has all snapshots that were complete when it began, and lists no others. After an error everything that was
// put stays put, and the next round goes on there.
func (r *Remote) Sync(ctx context.Context, o Options) (done Done, err error) {
	r.round.Lock()
	defer r.round.Unlock()
	if !r.known || o.TakeOver {
		if err := r.open(ctx, o.TakeOver); err != nil {
			return done, r.failed(err)
		}
	}
	w := &round{Remote: r, done: &done, progress: o.Progress}
	if w.progress == nil {
		w.progress = func(int64, int64) {}
	}
	for range restarts {
		if err = w.packs(ctx); err == nil {
			err = w.finish(ctx)
		}
		if !errors.Is(err, errVanished) {
			return done, r.failed(err)
		}
	}
	return done, r.failed(errors.New("prunes have moved what was to be copied, again and again; try later"))
}

func (r *Remote) failed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, index.ErrCorrupt) {
		return fmt.Errorf("copy at %s: %w: unmount the volume, then run graphvol rebuild, which makes the index anew", r, err)
	}
	return fmt.Errorf("copy at %s: %w", r, err)
}

// round is one run of Sync.
type round struct {
	*Remote
	done     *Done
	progress func(done, total int64)

	snaps []index.Snapshot              // complete, oldest first
	needs map[string]chunkstore.PackID  // the packs that the index has, by object
	have  map[string]index.RemoteObject // packs and manifests on the remote

	mu      sync.Mutex
	fresh   []index.RemoteObject // put, and not noted yet
	total   int64                // bytes of packs that have to be put
	missing []error              // packs that can't be had
}

// read takes stock: the snapshots before the packs, so that all that these snapshots need is among the packs.
func (w *round) read() error {
	all, err := w.cfg.Local.Index.Snapshots()
	if err != nil {
		return err
	}
	w.snaps = slices.DeleteFunc(all, func(s index.Snapshot) bool { return s.State != index.StateComplete })
	ids, err := w.cfg.Local.Index.PackIDs()
	if err != nil {
		return err
	}
	w.needs = make(map[string]chunkstore.PackID, len(ids))
	for _, id := range ids {
		w.needs[id.Object()] = id
	}
	rows, err := w.cfg.Local.Index.RemoteObjects(w.cfg.Name, "")
	if err != nil {
		return err
	}
	w.have = make(map[string]index.RemoteObject, len(rows))
	for _, o := range rows {
		w.have[o.Name] = o
	}
	return nil
}

// packs puts what the remote lacks. errVanished: one of them was pruned meanwhile, so that its chunks are elsewhere.
func (w *round) packs(ctx context.Context) error {
	if err := w.read(); err != nil {
		return err
	}
	var names []string
	for name := range w.needs {
		if _, ok := w.have[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if err := w.measure(ctx, names); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(w.cfg.Parallel)
	var vanished atomic.Bool
	for _, name := range names {
		g.Go(func() error {
			err := w.pack(gctx, name)
			if errors.Is(err, errVanished) {
				vanished.Store(true)
				return nil
			}
			return err
		})
	}
	err := errors.Join(g.Wait(), w.note(true), errors.Join(w.missing...))
	if err == nil && vanished.Load() {
		err = errVanished
	}
	return err
}

// measure adds up what has to be put.
func (w *round) measure(ctx context.Context, names []string) error {
	w.total = w.done.Bytes
	if len(names) == 0 { // most rounds of an idle volume: listing a large store for nothing costs a walk through its directories
		return nil
	}
	list, err := w.cfg.Local.Target.List(ctx, chunkstore.PackPrefix)
	if err != nil {
		return err
	}
	for _, in := range list {
		if _, lacking := slices.BinarySearch(names, in.Name); lacking {
			w.total += in.Size
		}
	}
	w.progress(w.done.Bytes, w.total)
	return nil
}

// errVanished says that what was to be copied is needed no more.
var errVanished = errors.New("it was pruned or deleted meanwhile")

// pack puts one pack.
func (w *round) pack(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	src, err := w.cfg.Local.Target.Open(ctx, name)
	if err == nil {
		defer src.Close()
		err = w.cfg.Local.Verify(ctx, w.needs[name])
	}
	if err != nil {
		return w.lost(ctx, name, err)
	}
	if err := w.put(ctx, name, src); err != nil {
		return err
	}
	w.mu.Lock()
	w.done.Packs++
	w.mu.Unlock()
	return w.note(false)
}

// lost tells what a pack that can't be read means. The others are copied all the same, but no snapshot is announced: nobody knows which needs it.
func (w *round) lost(ctx context.Context, name string, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ids, err := w.cfg.Local.Index.PackIDs()
	if err != nil {
		return err
	}
	if !slices.Contains(ids, w.needs[name]) {
		return errVanished
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missing = append(w.missing, fmt.Errorf("%s can't be copied: %w; graphvol verify tells which snapshots need it", name, cause))
	return nil
}

func (w *round) put(ctx context.Context, name string, obj target.Object) error {
	src := io.NewSectionReader(target.Reader(ctx, obj), 0, obj.Size())
	degraded, err := stored(w.target.Put(ctx, name, src, target.PutOptions{}))
	if err != nil {
		return fmt.Errorf("putting %s: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh = append(w.fresh, index.RemoteObject{Name: name, Size: obj.Size(), Degraded: degraded})
	w.done.Bytes += obj.Size()
	w.progress(w.done.Bytes, w.total)
	return nil
}

// note enters in the index what was put.
func (w *round) note(all bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fresh) == 0 || !all && len(w.fresh) < noteEvery {
		return nil
	}
	if err := w.cfg.Local.Index.SetRemoteObjects(w.cfg.Name, w.fresh, nil); err != nil {
		return err
	}
	w.fresh = nil
	return nil
}
