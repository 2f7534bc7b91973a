package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"graphvol/chunkstore/target"
)

// object is an open object. It takes no resources of the server.
type object struct {
	b    *Bucket
	name string
	version
	head []byte // the object's first bytes
}

// version is what tells an object from another that was put in its place.
type version struct {
	etag string
	size int64
}

// Open gets the object's first bytes.
func (b *Bucket) Open(ctx context.Context, name string) (target.Object, error) {
	if err := target.CheckName(name); err != nil {
		return nil, err
	}
	p := make([]byte, firstRead)
	n, v, err := b.fetch(ctx, name, "", p, 0)
	if err != nil {
		return nil, err
	}
	return &object{b, name, v, slices.Clip(slices.Clone(p[:n]))}, nil
}

// ReadAt reads from the version that was opened; if it was removed or replaced, the error wraps fs.ErrNotExist.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: o.name, Err: fs.ErrInvalid}
	}
	if off >= o.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), o.size-off)]
	n := 0
	if off < int64(len(o.head)) {
		n = copy(want, o.head[off:])
	}
	if n < len(want) {
		m, v, err := o.b.fetch(ctx, o.name, o.etag, want[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		if n += m; v.size != o.size || n < len(want) {
			return 0, o.otherSize(v)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Stream reads the rest of the object in one request.
func (o *object) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	if off < 0 || off > o.size {
		return nil, &fs.PathError{Op: "read", Path: o.name, Err: fs.ErrInvalid}
	}
	if off == o.size {
		return http.NoBody, nil
	}
	rd, v, err := o.b.get(ctx, o.name, o.etag, off, o.size-off)
	if err != nil {
		return nil, err
	}
	if v.size != o.size {
		rd.Close()
		return nil, o.otherSize(v)
	}
	return &stream{rd, o, ctx}, nil
}

// stream is an answer's body, whose errors are those of a target.
type stream struct {
	io.ReadCloser
	o   *object
	ctx context.Context
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = s.o.b.failed(s.ctx, "read", s.o.name, err)
	}
	return n, err
}

func (o *object) otherSize(v version) error {
	return fmt.Errorf("read %s in %s: it has %d bytes, and had %d: %w", o.name, o.b, v.size, o.size, fs.ErrNotExist)
}

func (o *object) Size() int64  { return o.size }
func (o *object) Close() error { return nil }

// fetch reads p, or what there is of it, from off on. With an etag it reads from that version alone.
func (b *Bucket) fetch(ctx context.Context, name, etag string, p []byte, off int64) (int, version, error) {
	rd, v, err := b.get(ctx, name, etag, off, int64(len(p)))
	if err != nil || rd == nil {
		return 0, v, err
	}
	defer rd.Close()
	n, err := io.ReadFull(rd, p[:max(0, min(int64(len(p)), v.size-off))])
	if err != nil {
		return n, v, b.failed(ctx, "read", name, err)
	}
	// A body that is read to its end leaves the connection for the next request. An answer to something else has no end near.
	_, _ = io.CopyN(io.Discard, rd, 1)
	return n, v, nil
}

// get asks for n bytes, or as many as there are, from off on. The reader is nil if the object is empty.
func (b *Bucket) get(ctx context.Context, name, etag string, off, n int64) (io.ReadCloser, version, error) {
	var opts minio.GetObjectOptions
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	if etag != "" {
		if err := opts.SetMatchETag(etag); err != nil {
			return nil, version{}, err
		}
	}
	rd, info, h, err := b.core.GetObject(ctx, b.bucket, b.key(name), opts)
	if err != nil {
		return nil, version{}, b.notFetched(ctx, name, off, err)
	}
	v := version{etag: info.ETag}
	if v.size, err = total(h, info.Size, off); err != nil {
		rd.Close()
		return nil, v, fmt.Errorf("read %s in %s: %w", name, b, err)
	}
	return rd, v, nil
}

// notFetched says what an error means; nil: the object is empty.
func (b *Bucket) notFetched(ctx context.Context, name string, off int64, err error) error {
	var r minio.ErrorResponse
	errors.As(err, &r)
	switch {
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable && off == 0:
		return nil // only an empty object lacks its first byte
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable, preconditionFailed(err):
		return fmt.Errorf("read %s in %s: it was replaced since it was opened: %w", name, b, fs.ErrNotExist)
	}
	return b.failed(ctx, "read", name, err)
}

// total returns the object's size from the headers of an answer that has it from off on.
func total(h http.Header, length, off int64) (int64, error) {
	r := h.Get("Content-Range")
	if r == "" && off == 0 && length >= 0 {
		return length, nil // the whole object
	}
	span, size, _ := strings.Cut(strings.TrimPrefix(r, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	from, ferr := strconv.ParseInt(first, 10, 64)
	all, aerr := strconv.ParseInt(size, 10, 64)
	if ferr != nil || aerr != nil || from != off || all <= off {
		return 0, fmt.Errorf("the server was asked for bytes from %d on and answers with Content-Range %q", off, r)
	}
	return all, nil
}
