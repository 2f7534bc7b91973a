package blockcache

import (
	"container/list"
	"sync"
)

// maxSpare bounds the buffers that wait to be used again.
const maxSpare = 8

// memory keeps the most recently used blocks. Buffers of blocks that are its own are used again when nobody reads them any more: that a new one is cleared takes longer than
// to decrypt some of the block.
type memory struct {
	limit int64
	mu    struct {
		sync.Mutex
		byKey map[blockKey]*list.Element
		lru   list.List // of *entry, most recently used first
		bytes int64
		spare [][]byte
	}
}

// entry is a block. What changes is guarded by memory.mu.
type entry struct {
	key     blockKey
	data    []byte
	own     bool // nobody else has data
	readers int
	gone    bool // out of the cache: the last reader gives the buffer back
}

func newMemory(limit int64) *memory {
	m := &memory{limit: limit}
	m.mu.byKey = make(map[blockKey]*list.Element)
	return m
}

// read copies what p has room for of a block, from byte at on; false: it isn't there.
func (m *memory) read(key blockKey, p []byte, at int64) (n int, ok bool) {
	e := m.acquire(key)
	if e == nil {
		return 0, false
	}
	n = copy(p, e.data[at:])
	m.release(e)
	return n, true
}

func (m *memory) acquire(key blockKey) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.mu.byKey[key]
	if el == nil {
		return nil
	}
	m.mu.lru.MoveToFront(el)
	e := el.Value.(*entry)
	e.readers++
	return e
}

func (m *memory) release(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.readers--
	m.reuseLocked(e)
}

// reuseLocked keeps the buffer of a block that is gone, if nobody can have it any more.
func (m *memory) reuseLocked(e *entry) {
	if e.gone && e.own && e.readers == 0 && len(m.mu.spare) < maxSpare {
		m.mu.spare = append(m.mu.spare, e.data)
		e.data = nil
	}
}

func (m *memory) has(key blockKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.byKey[key] != nil
}

// buffer gives room for n bytes, at most a block; whatever was in it is.
func (m *memory) buffer(n int64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := len(m.mu.spare); k > 0; k-- {
		p := m.mu.spare[k-1]
		m.mu.spare = m.mu.spare[:k-1]
		if int64(cap(p)) >= n {
			return p[:n]
		}
	}
	return make([]byte, n)
}

// put keeps a block, which isn't changed any more. Others may have data too.
func (m *memory) put(key blockKey, data []byte) { m.keep(&entry{key: key, data: data}) }

// putOwn is put for data that nobody else has, as buffer gave it.
func (m *memory) putOwn(key blockKey, data []byte) { m.keep(&entry{key: key, data: data, own: true}) }

func (m *memory) keep(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.mu.byKey[e.key]; el != nil {
		m.mu.lru.MoveToFront(el)
		e.gone = true
		m.reuseLocked(e)
		return
	}
	m.mu.byKey[e.key] = m.mu.lru.PushFront(e)
	m.mu.bytes += int64(len(e.data))
	for m.mu.bytes > m.limit && m.mu.lru.Len() > 1 {
		last := m.mu.lru.Remove(m.mu.lru.Back()).(*entry)
		delete(m.mu.byKey, last.key)
		m.mu.bytes -= int64(len(last.data))
		last.gone = true
		m.reuseLocked(last)
	}
}
