package erasure

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"graphvol/chunkstore/target"
)

var errLetGo = errors.New("the object is not being stored any more")

// shardSource is a shard or copy as a member stores it.
type shardSource struct {
	s      *stripes
	writer int
	number int
	head   []byte

	// gate is closed when nobody waits for the member any more: what the object is read from may be closed then, while a hanging member goes on reading.
	gate struct {
		sync.RWMutex
		closed bool
	}
	readers atomic.Int64 // within ReadAt
	calls   atomic.Int64 // of ReadAt, that have ended
}

var _ target.Source = (*shardSource)(nil)

func newShardSource(s *stripes, writer int, h header) *shardSource {
	return &shardSource{s: s, writer: writer, number: h.number, head: h.encode()}
}

// Size is the length of the file.
func (src *shardSource) Size() int64 { return fileLen(src.s.body) }

// ReadAt computes a part of the file.
func (src *shardSource) ReadAt(p []byte, off int64) (int, error) {
	src.readers.Add(1)
	defer func() {
		src.calls.Add(1)
		src.readers.Add(-1)
	}()
	src.gate.RLock()
	defer src.gate.RUnlock()
	if src.gate.closed {
		return 0, errLetGo
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	done := 0
	for done < len(p) {
		n, err := src.part(p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// part reads from header, body or table.
func (src *shardSource) part(p []byte, off int64) (int, error) {
	end := headerLen + src.s.body
	switch {
	case off < headerLen:
		return copy(p, src.head[off:]), nil
	case off < end:
		n := min(int64(len(p)), end-off)
		if err := src.s.readBody(src.writer, src.number, p[:n], off-headerLen); err != nil {
			return 0, err
		}
		return int(n), nil
	case off >= src.Size():
		return 0, io.EOF
	}
	table, err := src.s.table(src.number)
	if err != nil {
		return 0, err
	}
	return copy(p, table[off-end:]), nil
}

// letGo ends all reading.
func (src *shardSource) letGo() {
	src.s.finish(src.writer)
	src.gate.Lock()
	defer src.gate.Unlock()
	src.gate.closed = true
}
