package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

var (
	// errNotBegun says that Seal was called for a snapshot that Begin didn't give, or twice.
	errNotBegun = errors.New("the snapshot was not begun here, or is sealed already")
	// errNotItsTurn says that Seal was called while an older snapshot was not sealed.
	errNotItsTurn = errors.New("an older snapshot is not sealed yet")
)

// turns refuses seals that are out of order: a dirty map has nothing of what changed before the barrier of an older snapshot,
// which therefore must be complete, or have handed its changes on. To wait for a turn is the caller's business.
type turns struct {
	sealing sync.Mutex // held while a seal runs

	mu struct {
		sync.Mutex
		begun []uint64 // Seq of snapshots whose seal has not begun, ascending
	}
}

func (t *turns) add(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, _ := slices.BinarySearch(t.mu.begun, seq)
	t.mu.begun = slices.Insert(t.mu.begun, i, seq)
}

// drop takes out a snapshot that won't be sealed, and tells where it was in the order; -1: nowhere.
func (t *turns) drop(seq uint64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := slices.BinarySearch(t.mu.begun, seq)
	if !ok {
		return -1
	}
	t.mu.begun = slices.Delete(t.mu.begun, i, i+1)
	return i
}

// take begins a seal; end must follow. After an error the snapshot has no turn any more.
func (t *turns) take(seq uint64) error {
	free := t.sealing.TryLock()
	at := t.drop(seq)
	if at == 0 && free {
		return nil
	}
	if free {
		t.sealing.Unlock()
	}
	if at < 0 {
		return fmt.Errorf("seal: %w", errNotBegun)
	}
	return errNotItsTurn
}

func (t *turns) end() { t.sealing.Unlock() }
