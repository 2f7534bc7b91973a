package crypt

import (
	"context"
	"errors"
	"fmt"
	"io"

	"graphvol/chunkstore/target"
)

var _ target.Object = (*object)(nil)

// object is an encrypted object, open for reading.
type object struct {
	*sealer
	t     *Target
	name  string
	inner target.Object
	size  int64
	tail  []byte // the last segment, decrypted: it proves the length
}

func (t *Target) open(ctx context.Context, name string, inner target.Object) (*object, error) {
	size, ok := plainSize(inner.Size())
	if !ok {
		return nil, altered(name, "no object takes %d bytes", inner.Size())
	}
	o := &object{t: t, name: name, inner: inner, size: size}
	last := segments(size) - 1
	start := make([]byte, headerLen) // and the last segment, if it is the only one
	if last == 0 {
		start = make([]byte, inner.Size())
	}
	if err := o.readFull(ctx, start, 0); err != nil {
		return nil, err
	}
	h := header(start)
	if err := h.check(name); err != nil {
		return nil, err
	}
	key := t.ring.key(h.key())
	if key == nil {
		return nil, altered(name, "it asks for repository key %d, which the store doesn't have", h.key())
	}
	var err error
	if o.sealer, err = newSealer(key, h, name, size); err != nil {
		return nil, fmt.Errorf("open object %s: %w", name, err)
	}
	sealed := start[headerLen:]
	if last > 0 {
		off := headerLen + last*sealedLen
		sealed = make([]byte, inner.Size()-off)
		if err := o.readFull(ctx, sealed, off); err != nil {
			return nil, err
		}
	}
	if o.tail, err = o.sealer.open(sealed[:0], sealed, last); err != nil {
		return nil, o.badSegment(last)
	}
	return o, nil
}

// readFull fills p from the encrypted object.
func (o *object) readFull(ctx context.Context, p []byte, off int64) error {
	n, err := o.inner.ReadAt(ctx, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return altered(o.name, "it ends at %d, before the length it was listed with", off+int64(n))
	}
	return fmt.Errorf("read object %s: %w", o.name, err)
}

func (o *object) badSegment(n int64) error {
	return altered(o.name, "segment %d of %d doesn't decrypt", n, o.last+1)
}

// ReadAt decrypts the segments that it needs. It reads up to 4 MiB at once from the target.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read object %s at %d", o.name, off)
	}
	n := 0
	for n < len(p) && off+int64(n) < o.size {
		m, err := o.readSome(ctx, p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, fmt.Errorf("%s: %w", o.t.inner, err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readSome gives at least one byte, from the tail or a run of segments before it.
func (o *object) readSome(ctx context.Context, p []byte, off int64) (int, error) {
	first := off / segmentLen
	if first == o.last {
		return copy(p, o.tail[off-first*segmentLen:]), nil
	}
	end := min((off+int64(len(p))-1)/segmentLen+1, first+maxRun, o.last)
	buf := o.t.runs.get(int(end-first) * sealedLen)
	defer o.t.runs.put(buf)
	if err := o.readFull(ctx, *buf, headerLen+first*sealedLen); err != nil {
		return 0, err
	}
	n := 0
	for seg := first; seg < end; seg++ {
		sealed := (*buf)[(seg-first)*sealedLen:][:sealedLen:sealedLen]
		skip := off + int64(n) - seg*segmentLen
		if whole := p[n:]; skip == 0 && len(whole) >= segmentLen {
			if _, err := o.sealer.open(whole[:0:segmentLen], sealed, seg); err != nil {
				return n, o.badSegment(seg)
			}
			n += segmentLen
			continue
		}
		plain, err := o.sealer.open(sealed[:0], sealed, seg)
		if err != nil {
			return n, o.badSegment(seg)
		}
		n += copy(p[n:], plain[skip:])
	}
	return n, nil
}

func (o *object) Size() int64  { return o.size }
func (o *object) Close() error { return o.inner.Close() }
