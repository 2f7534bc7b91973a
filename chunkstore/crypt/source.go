package crypt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"graphvol/chunkstore/target"
)

var _ target.Source = (*source)(nil)

var errSourceChanged = errors.New("what is to be stored changed while it was read")

// source is an object as it is stored. Each part is encrypted when it is asked for.
type source struct {
	*sealer
	plain target.Source
	size  int64
	id    uint64 // marks segments in the pool as this source's
	pool  *segmentPool
	// seen has, for each segment that was encrypted, half of its tag. Another tag would be another plaintext under the same nonce.
	seen []atomic.Uint64
}

func newSource(s *sealer, plain target.Source, pool *segmentPool) *source {
	return &source{
		sealer: s,
		plain:  plain,
		size:   sealedSize(plain.Size()),
		id:     pool.ids.Add(1),
		pool:   pool,
		seen:   make([]atomic.Uint64, s.last+1),
	}
}

func (s *source) Size() int64 { return s.size }

// ReadAt gives any part of the encrypted object. Reading whole segments, or in order, costs the least.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	n := 0
	for n < len(p) && off+int64(n) < s.size {
		m, err := s.readSome(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readSome gives at least one byte, from the header or one segment.
func (s *source) readSome(p []byte, off int64) (int, error) {
	if off < headerLen {
		return copy(p, s.header[off:]), nil
	}
	n, skip := (off-headerLen)/sealedLen, (off-headerLen)%sealedLen
	length := min(sealedLen, s.size-headerLen-n*sealedLen)
	if skip == 0 && int64(len(p)) >= length {
		err := s.encrypt(p[:length], n)
		if err != nil {
			clear(p[:length])
			return 0, err
		}
		return int(length), nil
	}
	seg := s.pool.get()
	defer s.pool.put(seg)
	if seg.owner != s.id || seg.n != n {
		seg.owner = 0
		if err := s.encrypt(seg.data[:length], n); err != nil {
			return 0, err
		}
		seg.owner, seg.n = s.id, n
	}
	return copy(p, seg.data[skip:length]), nil
}

// encrypt fills p with segment n.
func (s *source) encrypt(p []byte, n int64) error {
	plain := p[:len(p)-tagLen]
	if m, err := s.plain.ReadAt(plain, n*segmentLen); m < len(plain) {
		if err == nil || errors.Is(err, io.EOF) {
			return errSourceChanged
		}
		return err
	}
	s.seal(p[:0], plain, n)
	tag := binary.LittleEndian.Uint64(p[len(plain):]) | 1 // 0 is for none yet
	if !s.seen[n].CompareAndSwap(0, tag) && s.seen[n].Load() != tag {
		return errSourceChanged
	}
	return nil
}
