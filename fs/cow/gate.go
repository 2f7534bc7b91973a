package cow

import (
	"context"
	"sync"
	"sync/atomic"
)

// gate is what every modifying request passes. Entering and leaving are one atomic addition each.
type gate struct {
	inside  atomic.Int64  // requests inside; plus gateClosed while the gate is closed
	drained chan struct{} // holds one token after the last request left a closed gate

	mu struct {
		sync.Mutex
		reopened chan struct{} // closed when the gate opens
	}
}

const gateClosed = 1 << 62

func (g *gate) init() { g.drained = make(chan struct{}, 1) }

// enter returns once the gate is open; the caller is then inside until leave.
func (g *gate) enter() {
	for g.inside.Add(1) >= gateClosed {
		g.leave()
		g.mu.Lock()
		ch := g.mu.reopened
		g.mu.Unlock()
		<-ch
	}
}

func (g *gate) leave() {
	if g.inside.Add(-1) == gateClosed {
		select {
		case g.drained <- struct{}{}:
		default:
		}
	}
}

// close keeps new requests out and waits for those inside. If ctx ends first, the gate is open again and how many were
// still inside is returned with ctx's error. There is one closer at a time.
func (g *gate) close(ctx context.Context) (left int64, err error) {
	g.mu.Lock()
	g.mu.reopened = make(chan struct{})
	g.mu.Unlock()
	g.inside.Add(gateClosed)
	for {
		left = g.inside.Load() - gateClosed
		if left == 0 {
			return 0, nil
		}
		select {
		case <-g.drained:
		case <-ctx.Done():
			g.open()
			return left, ctx.Err()
		}
	}
}

func (g *gate) open() {
	g.inside.Add(-gateClosed)
	g.mu.Lock()
	close(g.mu.reopened)
	g.mu.Unlock()
}
