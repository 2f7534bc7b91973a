package chunkstore

import "sync"

// buffer is a reusable byte slice.
type buffer struct{ b []byte }

// bufferPool recycles buffers so that storing and reading chunks allocates nothing in the long run.
type bufferPool struct{ pool sync.Pool }

// get returns a buffer of length n, its content undefined.
func (bp *bufferPool) get(n int) *buffer {
	buf, _ := bp.pool.Get().(*buffer)
	if buf == nil {
		buf = new(buffer)
	}
	if cap(buf.b) < n {
		// A segment of 128 KiB with its header is the usual case; do not grow to it in steps.
		buf.b = make([]byte, n, max(n, 129<<10))
	}
	buf.b = buf.b[:n]
	return buf
}

func (bp *bufferPool) put(buf *buffer) { bp.pool.Put(buf) }
