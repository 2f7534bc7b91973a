package crypt

import (
	"sync"
	"sync/atomic"
)

// maxRun is how many segments are read from the target at once: 4 MiB.
const maxRun = 64

// segment is an encrypted segment that a source may ask for again soon.
type segment struct {
	owner uint64 // the source's id; 0 if data is nothing of use
	n     int64
	data  [sealedLen]byte
}

type segmentPool struct {
	ids atomic.Uint64
	sync.Pool
}

func newSegmentPool() *segmentPool {
	p := &segmentPool{}
	p.New = func() any { return new(segment) }
	return p
}

func (p *segmentPool) get() *segment  { return p.Get().(*segment) }
func (p *segmentPool) put(s *segment) { p.Put(s) }

// runPool has buffers for runs of segments read from the target.
type runPool struct{ sync.Pool }

func (p *runPool) get(n int) *[]byte {
	b, _ := p.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
	}
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

func (p *runPool) put(b *[]byte) { p.Put(b) }
