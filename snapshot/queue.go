package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// errNotBegun says that Seal was called for a snapshot that Begin didn't give, or twice.
var errNotBegun = errors.New("the snapshot was not begun here, or is sealed already")

// sealQueue lets seals run one at a time, in the order of their snapshots' Seq.
type sealQueue struct {
	mu      sync.Mutex
	waiting []uint64 // ascending; the first may run
	sealing uint64   // Seq of the one whose Seal was called and runs; 0 if none
	changed chan struct{}
}

func (q *sealQueue) wakeLocked() {
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

func (q *sealQueue) signalLocked() <-chan struct{} {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	return q.changed
}

func (q *sealQueue) add(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, _ := slices.BinarySearch(q.waiting, seq)
	q.waiting = slices.Insert(q.waiting, i, seq)
}

// wait returns when it is seq's turn.
func (q *sealQueue) wait(ctx context.Context, seq uint64) error {
	for {
		q.mu.Lock()
		if _, ok := slices.BinarySearch(q.waiting, seq); !ok || q.sealing == seq {
			q.mu.Unlock()
			return fmt.Errorf("seal: %w", errNotBegun)
		}
		if q.waiting[0] == seq {
			q.sealing = seq
			q.mu.Unlock()
			return nil
		}
		changed := q.signalLocked()
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the seal of an older snapshot: %w", context.Cause(ctx))
		}
	}
}

// done takes seq out of the queue, however its seal went.
func (q *sealQueue) done(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i, ok := slices.BinarySearch(q.waiting, seq); ok {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	if q.sealing == seq {
		q.sealing = 0
	}
	q.wakeLocked()
}

// drain waits until no seal runs.
func (q *sealQueue) drain() {
	q.mu.Lock()
	for q.sealing != 0 {
		changed := q.signalLocked()
		q.mu.Unlock()
		<-changed
		q.mu.Lock()
	}
	q.mu.Unlock()
}
