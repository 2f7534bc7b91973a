package cow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"graphvol/fs/cow/backing"
	"graphvol/index"
)

// Volume is a directory tree with a memory of what changes. All methods are safe for concurrent use.
type Volume struct {
	tree     *backing.Tree
	db       *index.DB
	log      *slog.Logger
	recorded Recorded
	timeout  time.Duration
	dirs     struct{ epochs, images, markers string }
	token    string // of this boot and this mount of the state's filesystem

	backingToken string // the same for the backing's

	gate    gate
	closed  atomic.Bool
	run     atomic.Pointer[running]
	barrier chan struct{} // semaphore of one: barriers, one after the other
	spare   *running      // the epoch after the running one, if Ready has made it; guarded by the barrier semaphore

	unsealed atomic.Pointer[[]*Ended] // ascending; copied on write under mu
	carried  atomic.Pointer[[]*part]  // epochs of no snapshot, before the running one; copied on write under mu
	base     atomic.Pointer[string]   // the newest complete snapshot's id
	images   *images
	held     holds
	journal  *journal
	scan     scanner
	settler  settler

	mu struct {
		sync.Mutex
		carried []*part  // what the atomic pointer has
		full    bool     // anything may differ from the newest complete snapshot
		left    []uint64 // epochs with files that could not be removed
	}

	ctx  context.Context // of the background work; ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup
}

const (
	defaultTimeout = 2 * time.Second
	identInterval  = 100 * time.Millisecond
)

// Open makes a volume of cfg.Tree and what cfg.State and cfg.DB remember of it. It doesn't wait for the scan that follows any mount
// but a takeover; the first barrier does.
func Open(ctx context.Context, cfg Config) (*Volume, error) {
	v := &Volume{tree: cfg.Tree, db: cfg.DB, log: cfg.Log, recorded: cfg.Recorded, timeout: cfg.BarrierTimeout}
	if v.log == nil {
		v.log = slog.Default()
	}
	if v.timeout == 0 {
		v.timeout = defaultTimeout
	}
	v.dirs.epochs = filepath.Join(cfg.State, "epochs")
	v.dirs.images = filepath.Join(cfg.State, "preimages")
	v.dirs.markers = filepath.Join(cfg.State, "markers")
	for _, d := range []string{v.dirs.epochs, v.dirs.markers} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	v.gate.init()
	v.barrier = make(chan struct{}, 1)
	v.unsealed.Store(&[]*Ended{})
	v.carried.Store(&[]*part{})
	v.held.m = map[uint64]held{}
	v.scan.done = make(chan struct{})
	v.settler.wake, v.settler.after = make(chan struct{}, 1), cfg.SettleAfter
	v.ctx, v.stop = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if v.images, err = openImages(v.dirs.images, v.log); err != nil {
		return nil, err
	}
	if v.journal, err = openJournal(filepath.Join(v.dirs.markers, "journal"), cfg.Takeover); err != nil {
		v.log.Warn("a request sent again after a restart may be done twice", "err", err)
	}
	if err := v.recover(cfg.State, cfg.Takeover); err != nil {
		v.stop()
		return nil, fmt.Errorf("opening the volume: %w", err)
	}
	v.wg.Add(2)
	go v.keepIdents()
	go v.settle()
	return v, nil
}

// keepIdents records at short intervals what changed inodes look like, so that after the death of everything only what
// changed in the last moments is taken for changed behind the volume's back.
func (v *Volume) keepIdents() {
	defer v.wg.Done()
	t := time.NewTicker(identInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r := v.run.Load()
			if !v.scan.active.Load() {
				v.refreshIdents(r)
			}
			v.checkMarks(r)
		case <-v.ctx.Done():
			return
		}
	}
}

func (v *Volume) setCarriedLocked(parts []*part) {
	v.mu.carried = parts
	v.carried.Store(&parts)
}

// setFull makes the next snapshot a full one, also after a mount before it is taken.
func (v *Volume) setFull() {
	v.mu.Lock()
	v.mu.full = true
	v.mu.Unlock()
	if err := v.db.PutMeta(metaFull, []byte("1")); err != nil {
		v.log.Warn("that the next snapshot must be full is remembered until unmount only", "err", err)
	}
}

// CountAsChanged makes the next snapshot a full one: it isn't known any more what has changed.
func (v *Volume) CountAsChanged() { v.setFull() }

// CountAsChanged does the same for the next volume that is opened with db.
func CountAsChanged(db *index.DB) error { return db.PutMeta(metaFull, []byte("1")) }

// Close is for a clean unmount: what the running epoch has changed goes into the index, with what every changed inode looks like
// now. Requests that come later fail with EIO. Epochs that are not released belong to snapshots that won't be
// complete; their changes are kept.
func (v *Volume) Close(ctx context.Context) error {
	if err := v.lockBarrier(ctx); err != nil {
		return err
	}
	defer v.unlockBarrier()
	if v.closed.Load() {
		return nil
	}
	if left, err := v.gate.close(ctx); err != nil {
		return fmt.Errorf("%d requests still running: %w", left, err)
	}
	v.closed.Store(true)
	v.gate.open()
	if v.spare != nil {
		v.discard(v.spare)
		v.spare = nil
	}
	v.stop()
	v.wg.Wait()
	v.images.sweeping.Wait()
	return errors.Join(v.save(), v.tree.Close())
}

func (v *Volume) save() error {
	r := v.run.Load()
	if !v.scan.active.Load() {
		v.refreshIdents(r)
	}
	v.mu.Lock()
	parts := append(v.mu.carried[:len(v.mu.carried):len(v.mu.carried)], &part{ep: r.ep})
	full := v.mu.full || r.ep.Lost()
	v.mu.Unlock()
	for _, e := range *v.unsealed.Load() {
		e.fail(ErrClosed)
		full = full || e.Full()
		parts = append(parts, *e.parts.Load()...)
	}
	var errs error
	for _, p := range parts {
		errs = errors.Join(errs, v.store(p), p.ep.Close())
	}
	for _, ino := range v.heldInodes() {
		v.letGo(ino)
	}
	v.images.drop(r.number, r.label())
	v.journal.close()
	if errs == nil && full {
		errs = v.db.PutMeta(metaFull, []byte("1"))
	}
	if errs != nil {
		return fmt.Errorf("dirty map: %w; the next mount takes it from the epochs' files", errs)
	}
	return v.db.PutMeta(metaClean, []byte("1"))
}
