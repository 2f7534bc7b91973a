package remote

import (
	"context"
	"errors"
	"sync"

	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/target"
)

// lazy is a target that is opened when it is needed, and again after that has failed: one of several that can't be reached must not keep the others from being
// used.
type lazy struct {
	dial func(ctx context.Context, url string) (target.Target, error)
	url  string

	mu sync.Mutex
	t  target.Target // nil: not open
}

var _ target.Target = (*lazy)(nil)

func (l *lazy) open(ctx context.Context) (target.Target, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		return l.t, nil
	}
	t, err := l.dial(ctx, l.url)
	if err != nil {
		return nil, err
	}
	l.t = t
	return t, nil
}

func (l *lazy) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	t, err := l.open(ctx)
	if err != nil {
		return err
	}
	return t.Put(ctx, name, src, o)
}

func (l *lazy) Open(ctx context.Context, name string) (target.Object, error) {
	t, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return t.Open(ctx, name)
}

func (l *lazy) List(ctx context.Context, prefix string) ([]target.Info, error) {
	t, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return t.List(ctx, prefix)
}

func (l *lazy) Remove(ctx context.Context, names ...string) error {
	t, err := l.open(ctx)
	if err != nil {
		return err
	}
	return t.Remove(ctx, names...)
}

func (l *lazy) String() string { return l.url }

// stored tells whether a Put that seems to have failed has stored the object, though not on all targets.
func stored(err error) (degraded bool, _ error) {
	var d *erasure.DegradedError
	if errors.As(err, &d) {
		return true, nil
	}
	return false, err
}
