package index

import (
	"errors"
	"maps"
	"sync"

	"go.etcd.io/bbolt"
)

// owed are failed snapshots that the catalogue can't be told of yet, with the reasons: the next write transaction does it.
type owed struct {
	mu struct {
		sync.Mutex
		reasons map[string]string // by id
	}
}

func (o *owed) add(id, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.reasons == nil {
		o.mu.reasons = make(map[string]string)
	}
	o.mu.reasons[id] = reason
}

func (o *owed) all() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.mu.reasons)
}

// paid forgets what was stored.
func (o *owed) paid(reasons map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range reasons {
		delete(o.mu.reasons, id)
	}
}

// failAll stores that snapshots failed.
func failAll(tx *bbolt.Tx, reasons map[string]string) error {
	for id, reason := range reasons {
		if err := fail(tx, id, reason); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotPending) {
			return err
		}
	}
	return nil
}
