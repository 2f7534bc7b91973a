package erasure

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"graphvol/chunkstore/target"
)

// shard is a shard or copy being read. It is opened when it is needed.
type shard struct {
	t      *Target
	object string
	number int   // copies: the place in the list of copies
	at     []int // members that have it; one after the other is tried
	guess  bool  // they have not said that they have, nor anything else
	file   string
	copy   bool
	want   version // of shards
	head   *header // of copies, if it is known

	opening chan struct{} // holds one: who has taken it may open
	mu      struct {
		sync.Mutex
		closed bool
		err    error // from opening, if it is for good
		*opened
	}
}

// opened is an open file whose header and table are good.
type opened struct {
	obj    target.Object
	head   header
	sums   []uint32
	member int
}

func (t *Target) newShard(object, file string, number int, at []int) *shard {
	s := &shard{t: t, object: object, number: number, at: at, file: file, opening: make(chan struct{}, 1)}
	s.opening <- struct{}{}
	return s
}

// suspected says whether all that have it are slow or failing.
func (s *shard) suspected() bool {
	for _, m := range s.at {
		if !s.t.suspected(m) {
			return false
		}
	}
	return true
}

func (s *shard) missing(err error) Missing {
	m := Missing{Shard: s.number, Member: "no target", Err: err}
	if s.copy {
		m.Shard = -1
	}
	if len(s.at) > 0 {
		m.Member = s.t.members[s.at[0]].String()
	}
	return m
}

func (s *shard) state() (*opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, fs.ErrClosed
	}
	return s.mu.opened, s.mu.err
}

func (s *shard) open(ctx context.Context) (*opened, error) {
	select {
	case <-s.opening:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { s.opening <- struct{}{} }()
	if o, err := s.state(); o != nil || err != nil {
		return o, err
	}
	err, lasting := fs.ErrNotExist, true
	for _, m := range s.at {
		var o *opened
		if o, err = s.openAt(ctx, m); err == nil {
			return o, s.keep(o)
		}
		if !permanent(err) {
			lasting = false
			if ctx.Err() == nil {
				s.t.judge(m, err)
			}
		}
	}
	if lasting {
		s.mu.Lock()
		s.mu.err = err
		s.mu.Unlock()
	}
	return nil, err
}

// keep remembers an open file, unless nobody needs it any more.
func (s *shard) keep(o *opened) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		o.obj.Close()
		return fs.ErrClosed
	}
	s.mu.opened = o
	return nil
}

func (s *shard) openAt(ctx context.Context, member int) (_ *opened, err error) {
	obj, err := s.t.members[member].Open(ctx, s.file)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			obj.Close()
		}
	}()
	o := &opened{obj: obj, member: member}
	p := make([]byte, headerLen)
	if err := readFull(ctx, obj, p, 0); err != nil {
		return nil, err
	}
	if o.head, err = decodeHeader(p); err != nil {
		return nil, err
	}
	h := &o.head
	if h.name != sha256.Sum256([]byte(s.object)) || s.copy != (h.kind != kindShard) || !s.copy && (h.version != s.want || h.number != s.number) {
		return nil, damaged("this is another shard or copy than its name says")
	}
	if s.head != nil && *h != *s.head {
		return nil, damaged("this is another version of the object")
	}
	if obj.Size() != fileLen(h.body) {
		return nil, damaged(fmt.Sprintf("the file has %d bytes, not %d", obj.Size(), fileLen(h.body)))
	}
	p = make([]byte, 4*units(h.body)+4)
	if err := readFull(ctx, obj, p, headerLen+h.body); err != nil {
		return nil, err
	}
	o.sums, err = decodeTable(p, units(h.body))
	return o, err
}

func readFull(ctx context.Context, obj target.Object, p []byte, off int64) error {
	if n, err := obj.ReadAt(ctx, p, off); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			return damaged("the file is cut")
		}
		return err
	}
	return nil
}

// part is what was read of a shard: whole units.
type part struct {
	data []byte
	good []bool // by unit
	err  error  // why units aren't good
}

func (p *part) allGood() bool {
	for _, g := range p.good {
		if !g {
			return false
		}
	}
	return p.data != nil
}

// read reads n units from unit u on, and checks them.
func (s *shard) read(ctx context.Context, u, n int64) part {
	o, err := s.open(ctx)
	if err != nil {
		return part{good: make([]bool, n), err: err}
	}
	return s.readOpen(ctx, o, u, n)
}

func (s *shard) readOpen(ctx context.Context, o *opened, u, n int64) part {
	p := part{good: make([]bool, n)}
	size := min(n*unitLen, o.head.body-u*unitLen)
	buf := s.t.buffer(size)
	if p.err = readFull(ctx, o.obj, buf, headerLen+u*unitLen); p.err != nil {
		if ctx.Err() == nil {
			s.t.judge(o.member, p.err)
		}
		return p
	}
	s.t.judge(o.member, nil)
	p.data = buf
	for i := range p.good {
		lo := int64(i) * unitLen
		if p.good[i] = checksum(buf[lo:min(lo+unitLen, size)]) == o.sums[u+int64(i)]; !p.good[i] {
			p.err = damaged(fmt.Sprintf("the checksum of the bytes from %d on differs", headerLen+u*unitLen+lo))
		}
	}
	return p
}

func (s *shard) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	if s.mu.opened == nil {
		return nil
	}
	return s.mu.opened.obj.Close()
}

// buffer returns memory for size bytes; giveBack takes it back when nobody uses it any more.
func (t *Target) buffer(size int64) []byte {
	if p, ok := t.bufs.Get().(*[]byte); ok && int64(cap(*p)) >= size {
		return (*p)[:size]
	}
	return make([]byte, size)
}

func (t *Target) giveBack(p []byte) {
	if p != nil {
		t.bufs.Put(&p)
	}
}
