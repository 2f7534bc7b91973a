package cow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"graphvol/fs/cow/epoch"
	"graphvol/index"
)

// part is the dirty map of one ended epoch that no complete snapshot covers.
type part struct {
	ep      *epoch.Epoch
	indexed bool // it is in the index; guarded by the barrier semaphore, and of a sealed epoch by whoever releases it
}

// Barrier ends the running epoch and begins the next. What had returned before is in the ended one, what begins after pause is
// not. pause is how long the gate was closed: the time that requests in flight took to finish, at most the time-out
// (ErrBarrierTimeout). It waits for the scan after the mount, and for another barrier.
func (v *Volume) Barrier(ctx context.Context) (*Ended, time.Duration, error) {
	h, err := v.Hold(ctx, 0)
	if err != nil {
		return nil, 0, err
	}
	return h.Cut()
}

func (v *Volume) gateError(ctx context.Context, err error, left int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %d still running after %v; the volume goes on, try again when the disk is less busy", ErrBarrierTimeout, left, v.timeout)
	}
	return err
}

// swap makes next the running epoch. The gate is closed. Who reads both lists without the gate (ReadClean) finds the
// ended epoch in at least one of them.
func (v *Volume) swap(old, next *running) *Ended {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := &Ended{v: v, number: old.number}
	parts := append(v.mu.carried, &part{ep: old.ep})
	e.parts.Store(&parts)
	e.full.Store(v.mu.full || old.ep.Lost())
	list := *v.unsealed.Load()
	list = append(list[:len(list):len(list)], e)
	v.unsealed.Store(&list)
	v.run.Store(next)
	v.setCarriedLocked(nil)
	v.mu.full = false
	return e
}

// settleEnded puts the ended epoch's dirty map into the index. If that fails, the epoch's files keep it, and its intents.
func (v *Volume) settleEnded(old *running, e *Ended) {
	v.refreshIdents(old)
	for _, p := range *e.parts.Load() {
		if err := v.store(p); err != nil {
			v.log.Warn("dirty map stays in its files until the index takes it", "epoch", p.ep.Number(), "err", err)
		}
	}
}

// store moves a part from its files into the index.
func (v *Volume) store(p *part) error {
	if p.indexed {
		return nil
	}
	n := p.ep.Number()
	if err := v.db.PutEpoch(n, p.ep.Encode()); err != nil {
		return err
	}
	p.indexed = true
	v.removeFiles(n)
	return p.ep.Close()
}

// prepare makes the epoch that a barrier will begin.
func (v *Volume) prepare(n uint64) (*running, error) {
	if err := v.marker(n).create(); err != nil {
		v.removeFiles(n) // a directory whose sync failed must get the name anew
		return nil, err
	}
	ep, err := epoch.Create(v.dirs.epochs, n)
	if err != nil {
		v.removeFiles(n)
		return nil, err
	}
	if !ep.Durable() {
		v.log.Warn("the dirty map is in memory only: if the server dies, everything counts as dirty", "epoch", n, "err", ep.DurableErr())
	}
	return newRunning(ep), nil
}

func (v *Volume) discard(r *running) {
	r.ep.Close()
	v.removeFiles(r.number)
}

// checkParent makes the next snapshot a full one if the newest complete snapshot was deleted.
func (v *Volume) checkParent() error {
	known, _, err := v.parentKnown()
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.full = v.mu.full || !known
	return nil
}

// parentKnown tells whether the snapshot is there that the dirty maps are relative to, and the epoch that it ended: without it, or with
// an older one, it isn't known what has changed.
func (v *Volume) parentKnown() (known bool, sealed uint64, err error) {
	if sealed, err = v.db.SealedEpoch(); err != nil {
		return false, 0, err
	}
	all, err := v.db.Snapshots()
	known = slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.State == index.StateComplete && s.Epoch >= sealed })
	return known, sealed, err
}
