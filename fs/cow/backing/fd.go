package backing

import (
	"container/list"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Kinds of descriptor.
const (
	kindPath = iota
	kindRead
	kindWrite
	kinds
)

// handle is an open descriptor, shared by all who use it at the moment; the last one closes it.
type handle struct {
	fd   int
	kind int
	n    *node
	refs atomic.Int32
	used atomic.Bool // since the cache last looked

	// Under the cache's lock:
	elem *list.Element // nil: not in the cache
	out  bool          // its node has dropped it: the cache must not keep it, nor the node
}

func newHandle(n *node, kind, fd int) *handle {
	h := &handle{fd: fd, kind: kind, n: n}
	h.refs.Store(1)
	return h
}

// ref adds a user, unless the handle is closed already.
func (h *handle) ref() bool {
	for {
		r := h.refs.Load()
		if r == 0 {
			return false
		}
		if h.refs.CompareAndSwap(r, r+1) {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return true
		}
	}
}

func (h *handle) release() {
	if h.refs.Add(-1) == 0 {
		unix.Close(h.fd)
	}
}

// cached returns a descriptor of n that serves for kind, with a reference for the caller, or nil.
func (n *node) cached(kind int) *handle {
	n.mu.Lock()
	defer n.mu.Unlock()
	var h *handle
	switch kind {
	case kindPath:
		for _, c := range []*handle{n.pin, n.h[kindPath], n.h[kindRead], n.h[kindWrite]} {
			if c != nil {
				h = c
				break
			}
		}
	case kindRead:
		if h = n.h[kindWrite]; h == nil {
			h = n.h[kindRead]
		}
	case kindWrite:
		h = n.h[kindWrite]
	}
	if h == nil || !h.ref() {
		return nil
	}
	return h
}

// fdCache bounds the descriptors that nodes keep: second chance, first in first out.
type fdCache struct {
	max int
	mu  sync.Mutex
	all list.List // of *handle, guarded by mu
}

// install gives fd to n as its descriptor of this kind and returns it with a reference for the caller. If another one was
// faster, fd is closed and that one is returned.
func (t *Tree) install(n *node, kind, fd int) *handle {
	h := newHandle(n, kind, fd)
	n.mu.Lock()
	if old := n.h[kind]; old != nil && old.ref() {
		n.mu.Unlock()
		h.release()
		return old
	}
	if n.gone {
		n.mu.Unlock()
		return h
	}
	h.refs.Add(1)
	n.h[kind] = h
	n.mu.Unlock()
	t.cache.add(h, t.keep)
	return h
}

// keep says that h must stay: a server that isn't root may not be allowed to open a file again that it has open.
func (t *Tree) keep(h *handle) bool {
	return t.creds == nil && h.kind != kindPath && h.n.rec.readers+h.n.rec.writers > 0
}

func (c *fdCache) add(h *handle, keep func(*handle) bool) {
	var out []*handle
	c.mu.Lock()
	c.putLocked(h)
	for tries := c.all.Len() * 2; c.all.Len() > c.max && tries > 0; tries-- {
		e := c.all.Front()
		old := e.Value.(*handle)
		if old.used.Swap(false) && old != h {
			c.all.MoveToBack(e)
			continue
		}
		c.all.Remove(e)
		old.elem = nil
		out = append(out, old)
	}
	c.mu.Unlock()
	for _, old := range out {
		if !old.evict(keep) {
			c.mu.Lock()
			c.putLocked(old)
			c.mu.Unlock()
		}
	}
}

func (c *fdCache) putLocked(h *handle) {
	if !h.out {
		h.elem = c.all.PushBack(h)
	}
}

// forget takes out what nodes have dropped.
func (c *fdCache) forget(hs []*handle) {
	if len(hs) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range hs {
		h.out = true
		if h.elem != nil {
			c.all.Remove(h.elem)
			h.elem = nil
		}
	}
}

// evict takes h from its node, unless it has to stay.
func (h *handle) evict(keep func(*handle) bool) bool {
	n := h.n
	n.mu.Lock()
	if n.h[h.kind] != h {
		n.mu.Unlock()
		return true
	}
	if keep(h) {
		n.mu.Unlock()
		return false
	}
	n.h[h.kind] = nil
	n.mu.Unlock()
	h.release()
	return true
}
