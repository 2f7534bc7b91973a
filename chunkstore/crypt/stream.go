package crypt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"graphvol/chunkstore/target"
)

var _ target.Streamer = (*object)(nil)

// Stream decrypts the object from off on as it comes. errors.ErrUnsupported: the target has no streams.
func (o *object) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	if off < 0 || off > o.size {
		return nil, fmt.Errorf("read object %s at %d", o.name, off)
	}
	inner, ok := o.inner.(target.Streamer)
	if !ok {
		return nil, fmt.Errorf("%s: %w", o.t.inner, errors.ErrUnsupported)
	}
	seg := min(off/segmentLen, o.last)
	s := &stream{object: o, seg: seg, skip: int(off - seg*segmentLen)}
	if seg == o.last {
		return s, nil
	}
	var err error
	if s.in, err = inner.Stream(ctx, headerLen+seg*sealedLen); err != nil {
		return nil, err
	}
	s.sealed = bufio.NewReaderSize(s.in, 8*sealedLen)
	return s, nil
}

// stream is an object that is read in order.
type stream struct {
	*object
	in     io.ReadCloser // nil: the tail is all that is wanted
	seg    int64         // the next segment
	skip   int           // bytes of it that aren't wanted
	rest   []byte        // decrypted, and not read yet
	sealed *bufio.Reader // of in
}

// Read gives at most a segment.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 && s.seg <= s.last {
		if n, err := s.next(p); n > 0 || err != nil {
			return n, err
		}
	}
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next decrypts the next segment, right into p if all of it is wanted and p has room, else into rest.
func (s *stream) next(p []byte) (int, error) {
	seg, skip := s.seg, s.skip
	s.seg, s.skip = seg+1, 0
	if seg == s.last {
		s.rest = s.tail[skip:]
		return 0, nil
	}
	sealed, err := s.sealed.Peek(sealedLen)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = altered(s.name, "it ends before the length it was listed with")
		}
		return 0, fmt.Errorf("%s: read object %s: %w", s.t.inner, s.name, err)
	}
	defer s.sealed.Discard(sealedLen)
	if skip == 0 && len(p) >= segmentLen {
		if _, err := s.sealer.open(p[:0:segmentLen], sealed, seg); err != nil {
			return 0, s.badSegment(seg)
		}
		return segmentLen, nil
	}
	plain, err := s.sealer.open(nil, sealed, seg)
	if err != nil {
		return 0, s.badSegment(seg)
	}
	s.rest = plain[skip:]
	return 0, nil
}

// Close ends the request.
func (s *stream) Close() error {
	if s.in == nil {
		return nil
	}
	return s.in.Close()
}
