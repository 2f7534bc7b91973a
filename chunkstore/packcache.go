package chunkstore

import (
	"container/list"
	"context"
	"errors"
	"math"
	"sync"

	"graphvol/chunkstore/target"
)

// packCache holds packs open: the most recently used, and those being read.
type packCache struct {
	target target.Target
	limit  int
	mu     struct {
		sync.Mutex
		byID    map[PackID]*packHandle
		lru     list.List                // of *packHandle, most recently used first; exactly those in byID
		opening map[PackID]chan struct{} // closed when it is open, or can't be opened
	}
}

type packHandle struct {
	id     PackID
	obj    target.Object
	header [headerLen]byte // checked

	// Under the cache's lock:
	refs int           // readers
	elem *list.Element // nil once evicted; the last reader closes then
}

func newPackCache(t target.Target, limit int) *packCache {
	c := &packCache{target: t, limit: limit}
	c.mu.byID = make(map[PackID]*packHandle)
	c.mu.opening = make(map[PackID]chan struct{})
	return c
}

// acquire opens a pack, or finds it open, and checks its header. Every handle must be released.
func (c *packCache) acquire(ctx context.Context, id PackID) (*packHandle, error) {
	for {
		h, opening, mine := c.lookup(id)
		switch {
		case h != nil:
			return h, nil
		case mine:
			return c.admit(ctx, id, opening)
		}
		select {
		case <-opening: // by another reader; if that fails, it may be that reader's own doing
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lookup finds a pack that is open. If there is none, the caller has to open it, or to wait for whoever does.
func (c *packCache) lookup(id PackID) (h *packHandle, opening chan struct{}, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h = c.mu.byID[id]; h != nil {
		h.refs++
		c.mu.lru.MoveToFront(h.elem)
		return h, nil, false
	}
	if opening = c.mu.opening[id]; opening == nil {
		opening, mine = make(chan struct{}), true
		c.mu.opening[id] = opening
	}
	return nil, opening, mine
}

// admit opens a pack, and lets those know who wait for it.
func (c *packCache) admit(ctx context.Context, id PackID, opening chan struct{}) (*packHandle, error) {
	h, err := c.openPack(ctx, id)
	var idle []*packHandle
	c.mu.Lock()
	if err == nil {
		h.refs = 1
		h.elem = c.mu.lru.PushFront(h)
		c.mu.byID[id] = h
		idle = c.trimLocked()
	}
	delete(c.mu.opening, id)
	close(opening)
	c.mu.Unlock()
	for _, h := range idle {
		h.obj.Close()
	}
	return h, err
}

func (c *packCache) openPack(ctx context.Context, id PackID) (*packHandle, error) {
	obj, err := c.target.Open(ctx, id.Object())
	if err != nil {
		return nil, err
	}
	h := &packHandle{id: id, obj: obj}
	if err := h.readHeader(ctx); err != nil {
		obj.Close()
		return nil, err
	}
	return h, nil
}

// readHeader reads the header and checks it.
func (h *packHandle) readHeader(ctx context.Context) error {
	if h.obj.Size() < minPackLen {
		return &CorruptError{Pack: h.id, Reason: "the pack is cut off"}
	}
	err := readFull(target.Reader(ctx, h.obj), h.header[:], 0)
	if err == nil {
		err = checkHeader(h.header[:])
	}
	if errors.Is(err, ErrNewerFormat) && endsAsOurs(ctx, h.obj) {
		err = errors.New("the format version is damaged")
	}
	if err == nil || Passing(err) || errors.Is(err, ErrNewerFormat) {
		return err
	}
	return &CorruptError{Pack: h.id, Reason: "bad header", Err: err}
}

// endsAsOurs tells whether a pack's footer was written for a header of this version. A flipped bit must not look like a newer program's work, which a rebuild
// leaves alone.
func endsAsOurs(ctx context.Context, obj target.Object) bool {
	var foot [footerLen]byte
	if err := readFull(target.Reader(ctx, obj), foot[:], uint32(min(obj.Size()-footerLen, math.MaxUint32))); err != nil {
		return false
	}
	_, err := decodeFooter(foot[:], appendHeader(nil), obj.Size())
	return err == nil
}

func (c *packCache) release(h *packHandle) {
	c.mu.Lock()
	h.refs--
	last := h.refs == 0 && h.elem == nil
	c.mu.Unlock()
	if last {
		h.obj.Close()
	}
}

// trimLocked takes the least recently used packs out and returns those that the caller must close.
func (c *packCache) trimLocked() []*packHandle {
	var idle []*packHandle
	for c.mu.lru.Len() > c.limit {
		if h := c.evictLocked(c.mu.lru.Back().Value.(*packHandle)); h != nil {
			idle = append(idle, h)
		}
	}
	return idle
}

func (c *packCache) evictLocked(h *packHandle) *packHandle {
	c.mu.lru.Remove(h.elem)
	h.elem = nil
	delete(c.mu.byID, h.id)
	if h.refs > 0 {
		return nil
	}
	return h
}

// drop forgets a pack that is about to be removed.
func (c *packCache) drop(id PackID) {
	c.mu.Lock()
	var idle *packHandle
	if h := c.mu.byID[id]; h != nil {
		idle = c.evictLocked(h)
	}
	c.mu.Unlock()
	if idle != nil {
		idle.obj.Close()
	}
}

func (c *packCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for c.mu.lru.Len() > 0 {
		if h := c.evictLocked(c.mu.lru.Back().Value.(*packHandle)); h != nil {
			errs = append(errs, h.obj.Close())
		}
	}
	return errors.Join(errs...)
}
