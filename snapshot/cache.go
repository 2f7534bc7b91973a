package snapshot

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// chunkCache keeps decompressed, verified chunks, the most recently used ones. Who asks for a chunk that is just
// being read waits for it.
type chunkCache struct {
	store *chunkstore.Store
	limit int // bytes

	mu struct {
		sync.Mutex
		byID  map[chunkstore.ID]*list.Element // of *cachedChunk
		lru   *list.List                      // most recently used first
		bytes int                             // <= limit, except for what is being read
	}
}

type cachedChunk struct {
	id    chunkstore.ID
	ready chan struct{} // closed when data and err are set
	data  []byte
	err   error
}

func newChunkCache(store *chunkstore.Store, limit int) *chunkCache {
	c := &chunkCache{store: store, limit: limit}
	c.mu.byID = make(map[chunkstore.ID]*list.Element)
	c.mu.lru = list.New()
	return c
}

// get gives a chunk's bytes, which must not be written to.
func (c *chunkCache) get(ctx context.Context, id chunkstore.ID) ([]byte, error) {
	for {
		e, mine := c.entry(id)
		if mine {
			return c.fill(ctx, e)
		}
		select {
		case <-e.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// Whoever read it may have been interrupted, which says nothing about the chunk.
		if e.err == nil || ctx.Err() != nil {
			return e.data, e.err
		}
		if c.has(id) {
			continue
		}
		return c.store.Reread(ctx, id, nil)
	}
}

func (c *chunkCache) has(id chunkstore.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.byID[id] != nil
}

// entry gives the entry of a chunk; mine: it is new, and the caller fills it.
func (c *chunkCache) entry(id chunkstore.ID) (e *cachedChunk, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.mu.byID[id]; el != nil {
		c.mu.lru.MoveToFront(el)
		return el.Value.(*cachedChunk), false
	}
	e = &cachedChunk{id: id, ready: make(chan struct{})}
	c.mu.byID[id] = c.mu.lru.PushFront(e)
	return e, true
}

func (c *chunkCache) fill(ctx context.Context, e *cachedChunk) ([]byte, error) {
	e.data, e.err = c.store.Reread(ctx, e.id, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.ready)
	if e.err != nil {
		c.dropLocked(c.mu.byID[e.id])
		return nil, e.err
	}
	c.mu.bytes += len(e.data)
	for el := c.mu.lru.Back(); el != nil && c.mu.bytes > c.limit; {
		prev := el.Prev()
		if old := el.Value.(*cachedChunk); old != e && isClosed(old.ready) {
			c.mu.bytes -= len(old.data)
			c.dropLocked(el)
		}
		el = prev
	}
	return e.data, nil
}

func (c *chunkCache) dropLocked(el *list.Element) {
	if el != nil {
		delete(c.mu.byID, c.mu.lru.Remove(el).(*cachedChunk).id)
	}
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// readBlocks reads those blocks of a segment that are in mask, all of them data, to their places in p.
func (r *Repo) readBlocks(ctx context.Context, seg *tree.Segment, mask uint32, p []byte) error {
	wanted := seg.Keep(mask)
	for _, e := range wanted.Extents {
		data, err := r.chunks.get(ctx, e.Chunk)
		if err != nil {
			return err
		}
		from, to := int(e.ChunkFirst)*BlockSize, (int(e.ChunkFirst)+int(e.Blocks))*BlockSize
		if to > len(data) {
			return fmt.Errorf("chunk %s has %d bytes where a segment refers to %d: %w", e.Chunk, len(data), to, chunkstore.ErrCorrupt)
		}
		copy(p[int(e.First)*BlockSize:], data[from:to])
	}
	return nil
}

// verifiedLimit bounds a verifiedSet: about 20 MB of memory, for 32 GiB of data.
const verifiedLimit = 256 << 10

// livePart is a segment of a live file that was read and had the content of a chunk.
type livePart struct {
	ino, gen, seg uint64
	chunk         chunkstore.ID
}

// verifiedSet are the parts that were verified lately, and those that are just being.
type verifiedSet struct {
	*chunkstore.VerifiedSet[livePart]

	mu struct {
		sync.Mutex
		running map[livePart]chan struct{} // being verified; closed and removed at the end
	}
}

func newVerifiedSet(limit int) *verifiedSet {
	v := &verifiedSet{VerifiedSet: chunkstore.NewVerifiedSet[livePart](limit)}
	v.mu.running = make(map[livePart]chan struct{})
	return v
}

// begin lets one caller at a time verify a part, which must call end. The others wait for it, and get false.
func (v *verifiedSet) begin(ctx context.Context, p livePart) (mine bool, err error) {
	v.mu.Lock()
	running, ok := v.mu.running[p]
	if !ok {
		v.mu.running[p] = make(chan struct{})
		v.mu.Unlock()
		return true, nil
	}
	v.mu.Unlock()
	select {
	case <-running:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// end tells how the verifying went.
func (v *verifiedSet) end(p livePart, ok bool) {
	if ok {
		v.Add(p)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.mu.running[p])
	delete(v.mu.running, p)
}
