package remote

import (
	"context"
	"fmt"
	"sync/atomic"

	"graphvol/chunkstore/blockcache"
	"graphvol/chunkstore/target"
)

// Copy is a remote that is read while another machine goes on writing to it. It shows what the newest head said when it was opened, or last refreshed.
type Copy struct {
	target.Target // with a cache
	view          atomic.Pointer[View]
}

var _ target.Local = (*Copy)(nil)

// CopyOptions say how a Copy is read.
type CopyOptions struct {
	// Cache says where blocks that were read are kept, for the store of an id.
	Cache func(store string) (blockcache.Options, error)
	// Watch gets the outcome of every request to the remote; it may be nil.
	Watch func(error)
}

// OpenCopy opens a remote that is there, to read it. Errors are those of Open, and ErrChanged.
func (o *Opener) OpenCopy(ctx context.Context, s Spec, opts CopyOptions) (*Copy, error) {
	u, err := o.open(ctx, "", s)
	if err != nil {
		return nil, err
	}
	cache, err := opts.Cache(u.file.Store)
	if err != nil {
		return nil, err
	}
	c := &Copy{}
	if c.Target, err = u.cached(watch(u.Target, opts.Watch), cache); err != nil {
		return nil, fmt.Errorf("use the cache in %s: %w", cache.Dir, err)
	}
	v, err := OpenView(ctx, c.Target)
	if err != nil {
		return nil, err
	}
	c.view.Store(v)
	return c, nil
}

// Newest tells of the head that is shown.
func (c *Copy) Newest() Head { return c.view.Load().Newest }

// Volume is the id of the volume that it is a copy of.
func (c *Copy) Volume() string { return c.view.Load().Volume }

// Refresh shows the newest head. ErrChanged if it is an older one than before: then what was known stays.
func (c *Copy) Refresh(ctx context.Context) (changed bool, err error) {
	old := c.view.Load()
	v, err := OpenView(ctx, c.Target)
	switch {
	case err != nil:
		return false, err
	case v.store != old.store:
		return false, fmt.Errorf("%s: %w: it was copy %s, and is %s", c, ErrForeign, old.store, v.store)
	case v.head == old.head:
		return false, nil
	case v.head.Sequence <= old.head.Sequence:
		return false, fmt.Errorf("%s: %w", c, rolledBack(v.head.Sequence, old.head.Sequence))
	}
	c.view.Store(v)
	return true, nil
}

// CheckSeen refuses a copy that shows an older head than was seen before.
func (c *Copy) CheckSeen(sequence uint64) error {
	if now := c.Newest().Sequence; now < sequence {
		return fmt.Errorf("%s: %w", c, rolledBack(now, sequence))
	}
	return nil
}

func rolledBack(now, before uint64) error {
	return fmt.Errorf("%w: its newest head is number %d, and there was a number %d: it was rolled back, or lost what was written last", ErrChanged, now, before)
}

// List is the View's.
func (c *Copy) List(ctx context.Context, prefix string) ([]target.Info, error) {
	return c.view.Load().List(ctx, prefix)
}

// Open is the View's.
func (c *Copy) Open(ctx context.Context, name string) (target.Object, error) {
	return c.view.Load().Open(ctx, name)
}

// Put fails.
func (c *Copy) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	return c.view.Load().Put(ctx, name, src, o)
}

// Remove fails.
func (c *Copy) Remove(ctx context.Context, names ...string) error {
	return c.view.Load().Remove(ctx, names...)
}

// Create fails.
func (c *Copy) Create(ctx context.Context) (target.Upload, error) { return c.view.Load().Create(ctx) }

// SyncRemoved does nothing.
func (c *Copy) SyncRemoved(context.Context, string) error { return nil }
