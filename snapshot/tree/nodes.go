package tree

import (
	"container/list"
	"context"
	"fmt"
	"io/fs"
	"sort"
	"sync"

	"graphvol/chunkstore"
)

// Getter reads chunks. The bytes it gives are those of the id (chunkstore.Store verifies them). It appends to buf[:0].
type Getter interface {
	Get(ctx context.Context, id chunkstore.ID, buf []byte) ([]byte, error)
}

// Putter stores chunks; it copies p.
type Putter interface {
	Put(p []byte) (chunkstore.ID, error)
}

var _ Getter = (*chunkstore.Store)(nil)

// Nodes reads and changes maps through a cache of nodes that all share.
type Nodes struct {
	get   Getter
	limit int

	mu struct {
		sync.Mutex
		byID  map[chunkstore.ID]*list.Element // of *cached
		lru   *list.List                      // most recently used first
		bytes int                             // <= limit, except while one node alone is larger
	}
}

// cached is a node that was read, or the bytes of one that was written: a seal's nodes are those that the next one changes.
type cached struct {
	id    chunkstore.ID
	node  *node  // nil if it isn't decoded yet
	raw   []byte // nil if it is
	bytes int    // memory it takes, roughly
}

// NewNodes returns Nodes that keep about cacheBytes of nodes in memory.
func NewNodes(get Getter, cacheBytes int) *Nodes {
	n := &Nodes{get: get, limit: cacheBytes}
	n.mu.byID = make(map[chunkstore.ID]*list.Element)
	n.mu.lru = list.New()
	return n
}

// load gives the root node of a map that isn't empty.
func (n *Nodes) load(ctx context.Context, ref Ref) (*node, error) {
	nd, err := n.read(ctx, ref)
	if err == nil {
		err = ref.mayBe(nd)
	}
	if err != nil {
		return nil, err
	}
	return nd, nil
}

func (n *Nodes) read(ctx context.Context, ref Ref) (*node, error) {
	if len(ref.Inline) > 0 {
		return decodeNode(ref.Inline, ref.Count)
	}
	nd, p := n.lookup(ref.ID)
	if nd != nil {
		return nd, nil
	}
	var err error
	if p == nil {
		if p, err = n.get.Get(ctx, ref.ID, nil); err != nil {
			return nil, fmt.Errorf("read tree node: %w", err)
		}
	}
	if nd, err = decodeNode(p, ref.Count); err != nil {
		return nil, fmt.Errorf("chunk %s: %w", ref.ID, err)
	}
	n.keep(&cached{id: ref.ID, node: nd, bytes: nd.bytes})
	return nd, nil
}

func (n *Nodes) lookup(id chunkstore.ID) (nd *node, raw []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.mu.byID[id]
	if e == nil {
		return nil, nil
	}
	n.mu.lru.MoveToFront(e)
	c := e.Value.(*cached)
	return c.node, c.raw
}

// keep puts c into the cache, in place of the same node that isn't decoded.
func (n *Nodes) keep(c *cached) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.mu.byID[c.id]; e != nil {
		if e.Value.(*cached).node != nil || c.node == nil {
			return
		}
		n.removeLocked(e)
	}
	n.mu.byID[c.id] = n.mu.lru.PushFront(c)
	n.mu.bytes += c.bytes
	for n.mu.bytes > n.limit && n.mu.lru.Len() > 1 {
		n.removeLocked(n.mu.lru.Back())
	}
}

func (n *Nodes) removeLocked(e *list.Element) {
	c := n.mu.lru.Remove(e).(*cached)
	delete(n.mu.byID, c.id)
	n.mu.bytes -= c.bytes
}

// Get gives the value of (key, name); false if the map has no such entry. The value is not to be written to.
func (n *Nodes) Get(ctx context.Context, ref Ref, key uint64, name string) ([]byte, bool, error) {
	for ref.Count > 0 {
		nd, err := n.load(ctx, ref)
		if err != nil {
			return nil, false, err
		}
		if nd.isLeaf() {
			i, ok := nd.find(key, name)
			if !ok {
				return nil, false, nil
			}
			return nd.entries[i].Value, true, nil
		}
		if ref, _ = nd.child(key); ref.Count == 0 {
			break
		}
	}
	return nil, false, nil
}

func (n *node) find(key uint64, name string) (int, bool) {
	i := sort.Search(len(n.entries), func(i int) bool { return n.entries[i].compare(key, name) >= 0 })
	return i, i < len(n.entries) && n.entries[i].compare(key, name) == 0
}

// Ascend calls fn for the entries with keys at or above from, ascending. If fn returns fs.SkipAll, Ascend ends and
// returns nil; other errors end it and are returned.
func (n *Nodes) Ascend(ctx context.Context, ref Ref, from uint64, fn func(Entry) error) error {
	err := n.ascend(ctx, ref, from, fn)
	if err == fs.SkipAll {
		return nil
	}
	return err
}

func (n *Nodes) ascend(ctx context.Context, ref Ref, from uint64, fn func(Entry) error) error {
	if ref.Count == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	nd, err := n.load(ctx, ref)
	if err != nil {
		return err
	}
	if nd.isLeaf() {
		for i, _ := nd.find(from, ""); i < len(nd.entries); i++ {
			if err := fn(nd.entries[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for i, d := 0, uint(0); i < len(nd.children); d++ {
		if nd.bitmap&(1<<d) == 0 {
			continue
		}
		i++
		if _, hi := nd.childSpan(d); hi < from {
			continue
		}
		if err := n.ascend(ctx, nd.children[i-1], from, fn); err != nil {
			return err
		}
	}
	return nil
}

// Reach calls visit for the id of every chunk that is a node of the map, and leaf for every entry. If visit returns false
// for a node, nothing below it is visited: the caller has been there.
func (n *Nodes) Reach(ctx context.Context, ref Ref, visit func(chunkstore.ID) bool, leaf func(Entry) error) error {
	if ref.Count == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(ref.Inline) == 0 && !visit(ref.ID) {
		return nil
	}
	nd, err := n.load(ctx, ref)
	if err != nil {
		return err
	}
	for _, e := range nd.entries {
		if err := leaf(e); err != nil {
			return err
		}
	}
	for _, c := range nd.children {
		if err := n.Reach(ctx, c, visit, leaf); err != nil {
			return err
		}
	}
	return nil
}
