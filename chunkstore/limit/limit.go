// Package limit is a target over a target: limits bytes a second read and written.
//
// Bytes are waited for before they are read, in either direction: a Put reads its source no faster than the limit says. Each byte of a source counts
// once, however often it is read; a bucket reads a part of an object twice, first to add it up and then to send it, so there a part of an object (at most 64 MiB)
// may be sent at full speed, and the next one waits. Requests without data aren't limited.
package limit

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"graphvol/chunkstore/target"
)

// Bounds of what may be read at once after a while of nothing, so that a limit of any size is kept to within a fraction of a second.
const (
	leastBurst = 16 << 10
	mostBurst  = 1 << 20
)

// Limiter gives out bytes, and counts them. Several targets may share one; nil has no limit and doesn't count.
type Limiter struct {
	rate  *rate.Limiter
	given atomic.Int64
}

// NewLimiter allows so many bytes a second; 0 or less: any number.
func NewLimiter(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return &Limiter{rate: rate.NewLimiter(rate.Inf, mostBurst)}
	}
	burst := int(min(max(bytesPerSecond/8, leastBurst), mostBurst))
	return &Limiter{rate: rate.NewLimiter(rate.Limit(bytesPerSecond), burst)}
}

// Given tells how many bytes were given out.
func (l *Limiter) Given() int64 { return l.given.Load() }

// wait waits for n bytes.
func (l *Limiter) wait(ctx context.Context, n int64) error {
	if l == nil || n <= 0 {
		return nil
	}
	l.given.Add(n)
	for n > 0 {
		part := min(n, int64(l.rate.Burst()))
		if err := l.rate.WaitN(ctx, int(part)); err != nil {
			if ctx.Err() == nil { // it would take longer than ctx lasts
				return context.DeadlineExceeded
			}
			return ctx.Err()
		}
		n -= part
	}
	return nil
}

// ParseRate reads bytes a second as people write them: 50MiB/s, 50M, 1000000; 0 for no limit. M is 1,000,000, and Mi is 1,048,576.
func ParseRate(s string) (int64, error) {
	n, err := humanize.ParseBytes(strings.TrimSuffix(s, "/s"))
	if err != nil || int64(n) < 0 {
		return 0, fmt.Errorf("%q is no number of bytes a second: write it as 50MiB/s or 50M, or 0 for no limit", s)
	}
	return int64(n), nil
}

// Target limits another target.
type Target struct {
	target.Target
	read, write *Limiter
}

var _ target.Target = (*Target)(nil)

// New returns the target with limits; nil is none.
func New(t target.Target, read, write *Limiter) *Target { return &Target{t, read, write} }

// Put stores an object.
func (t *Target) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if t.write != nil {
		src = &source{Source: src, ctx: ctx, limiter: t.write}
	}
	return t.Target.Put(ctx, name, src, o)
}

// Open opens an object.
func (t *Target) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := t.Target.Open(ctx, name)
	if err != nil || t.read == nil {
		return o, err
	}
	return &object{o, t.read}, nil
}

type object struct {
	target.Object
	limiter *Limiter
}

func (o *object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := o.limiter.wait(ctx, min(int64(len(p)), o.Size()-off)); err != nil {
		return 0, err
	}
	return o.Object.ReadAt(ctx, p, off)
}

// source waits for what it is asked for the first time.
type source struct {
	target.Source
	ctx     context.Context
	limiter *Limiter

	mu   sync.Mutex
	paid int64 // from the beginning
}

var _ io.ReaderAt = (*source)(nil)

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), s.Size())
	s.mu.Lock()
	due := end - s.paid
	s.paid = max(s.paid, end)
	s.mu.Unlock()
	if err := s.limiter.wait(s.ctx, due); err != nil {
		return 0, err
	}
	return s.Source.ReadAt(p, off)
}
