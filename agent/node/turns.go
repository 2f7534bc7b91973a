package node

import (
	"context"
	"sync"
)

// turns has those that do something to the same volume take turns. The zero value is ready.
type turns struct{ all sync.Map } // of volumes' labels to chan struct{}

// take waits for the turn, which ends with done.
func (t *turns) take(ctx context.Context, volume string) (done func(), err error) {
	v, _ := t.all.LoadOrStore(volume, make(chan struct{}, 1))
	turn := v.(chan struct{})
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
