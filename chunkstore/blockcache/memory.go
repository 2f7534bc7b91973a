package blockcache

import (
	"container/list"
	"sync"
)

// memory keeps the most recently used blocks.
type memory struct {
	limit int64
	mu    struct {
		sync.Mutex
		byKey map[blockKey]*list.Element
		lru   list.List // of *entry, most recently used first
		bytes int64
	}
}

type entry struct {
	key  blockKey
	data []byte
}

func newMemory(limit int64) *memory {
	m := &memory{limit: limit}
	m.mu.byKey = make(map[blockKey]*list.Element)
	return m
}

// get returns a block, which must not be changed; nil: it isn't there.
func (m *memory) get(key blockKey) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.mu.byKey[key]
	if e == nil {
		return nil
	}
	m.mu.lru.MoveToFront(e)
	return e.Value.(*entry).data
}

func (m *memory) put(key blockKey, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.mu.byKey[key]; e != nil {
		m.mu.lru.MoveToFront(e)
		return
	}
	m.mu.byKey[key] = m.mu.lru.PushFront(&entry{key, data})
	m.mu.bytes += int64(len(data))
	for m.mu.bytes > m.limit && m.mu.lru.Len() > 1 {
		last := m.mu.lru.Remove(m.mu.lru.Back()).(*entry)
		delete(m.mu.byKey, last.key)
		m.mu.bytes -= int64(len(last.data))
	}
}
