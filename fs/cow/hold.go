package cow

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Held is a volume whose gate is closed: until Cut or Release, or until its bound passes, nothing of the volume changes. So several volumes that
// are held at the same time can be cut at one moment. Safe for concurrent use.
type Held struct {
	v         *Volume
	old, next *running
	began     time.Time
	bound     *time.Timer // nil: none

	mu struct {
		sync.Mutex
		over error         // why there is nothing to cut any more; nil: the gate is closed
		held time.Duration // then, how long it was
	}
}

// Ready makes what the next barrier needs before its gate closes: the next epoch's files, which are synced. Volumes that are held together wait for each other with their gates closed; after Ready
// they wait for each other's requests in flight, and not for each other's disks. Without it a barrier makes them itself.
func (v *Volume) Ready(ctx context.Context) error {
	if err := v.WaitScan(ctx); err != nil {
		return err
	}
	if err := v.lockBarrier(ctx); err != nil {
		return err
	}
	defer v.unlockBarrier()
	if v.closed.Load() {
		return ErrClosed
	}
	next, err := v.next()
	v.spare = next
	return err
}

// next gives the epoch after the running one, with the barrier semaphore.
func (v *Volume) next() (*running, error) {
	if r := v.spare; r != nil {
		v.spare = nil
		return r, nil
	}
	n := v.run.Load().number + 1
	r, err := v.prepare(n)
	if err != nil {
		return nil, fmt.Errorf("epoch %d cannot begin: %w", n, err)
	}
	return r, nil
}

// Hold closes the gate, waiting for requests in flight at most for the volume's time-out (ErrBarrierTimeout), and keeps it closed for the bound at most:
// when that passes it opens by itself, whoever is to call Cut. It waits for the scan after the mount, and for another barrier.
// With a bound of 0 the caller must cut or release at once.
func (v *Volume) Hold(ctx context.Context, bound time.Duration) (*Held, error) {
	if err := v.WaitScan(ctx); err != nil {
		return nil, err
	}
	if err := v.lockBarrier(ctx); err != nil {
		return nil, err
	}
	h, err := v.holdLocked(ctx, bound)
	if err != nil {
		v.unlockBarrier()
	}
	return h, err
}

// holdLocked is Hold with the barrier semaphore, which is the Held's afterwards.
func (v *Volume) holdLocked(ctx context.Context, bound time.Duration) (*Held, error) {
	if v.closed.Load() {
		return nil, ErrClosed
	}
	if err := v.checkParent(); err != nil {
		return nil, err
	}
	v.mergeCarried()
	v.removeLeft()
	old := v.run.Load()
	next, err := v.next()
	if err != nil {
		return nil, err
	}
	v.images.add(old.number) // what can be made before the gate closes, is
	cctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	h := &Held{v: v, old: old, next: next, began: time.Now()}
	left, err := v.gate.close(cctx)
	if err != nil {
		v.discard(next)
		return nil, v.gateError(ctx, err, left)
	}
	if bound > 0 {
		h.mu.Lock() // the timer may fire before it is noted
		h.bound = time.AfterFunc(bound, func() { h.end(fmt.Errorf("%w of %v", ErrHoldOver, bound)) })
		h.mu.Unlock()
	}
	return h, nil
}

// Cut ends the running epoch, begins the next and opens the gate. held is how long it was closed, waiting for requests in flight included. If the gate has
// been opened before, nothing is cut: ErrHoldOver, or ErrHoldReleased after Release or another Cut.
func (h *Held) Cut() (e *Ended, held time.Duration, err error) {
	h.mu.Lock()
	if err, held := h.mu.over, h.mu.held; err != nil {
		h.mu.Unlock()
		return nil, held, err
	}
	e = h.v.swap(h.old, h.next)
	h.openLocked(ErrHoldReleased)
	held = h.mu.held
	h.mu.Unlock()
	h.v.settleEnded(h.old, e)
	h.v.unlockBarrier()
	return e, held, nil
}

// Release opens the gate, if it is closed, and tells how long it was. Nothing has ended.
func (h *Held) Release() time.Duration { return h.end(ErrHoldReleased) }

// end is the end of a hold without a cut.
func (h *Held) end(why error) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.over != nil {
		return h.mu.held
	}
	h.openLocked(why)
	h.v.discard(h.next)
	h.v.unlockBarrier()
	return h.mu.held
}

func (h *Held) openLocked(why error) {
	h.v.gate.open()
	h.mu.over, h.mu.held = why, time.Since(h.began)
	if h.bound != nil {
		h.bound.Stop()
	}
}

// lockBarrier takes the barrier semaphore, which excludes barriers, holds and the end of the volume.
func (v *Volume) lockBarrier(ctx context.Context) error {
	select {
	case v.barrier <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Volume) unlockBarrier() { <-v.barrier }
