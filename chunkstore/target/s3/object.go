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
			return 0, fmt.Errorf("read %s in %s: it has %d bytes, and had %d: %w", o.name, o.b, v.size, o.size, fs.ErrNotExist)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) Size() int64  { return o.size }
func (o *object) Close() error { return nil }

// fetch reads p, or what there is of it, from off on. With an etag it reads from that version alone.
func (b *Bucket) fetch(ctx context.Context, name, etag string, p []byte, off int64) (int, version, error) {
	var opts minio.GetObjectOptions
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	if etag != "" {
		if err := opts.SetMatchETag(etag); err != nil {
			return 0, version{}, err
		}
	}
	rd, info, h, err := b.core.GetObject(ctx, b.bucket, b.key(name), opts)
	if err != nil {
		return b.notFetched(ctx, name, off, err)
	}
	defer rd.Close()
	v := version{etag: info.ETag}
	if v.size, err = total(h, info.Size, off); err != nil {
		return 0, v, fmt.Errorf("read %s in %s: %w", name, b, err)
	}
	n, err := io.ReadFull(rd, p[:max(0, min(int64(len(p)), v.size-off))])
	if err != nil {
		return n, v, b.failed(ctx, "read", name, err)
	}
	// A body that is read to its end leaves the connection for the next request. An answer to something else has no end near.
	_, _ = io.CopyN(io.Discard, rd, 1)
	return n, v, nil
}

func (b *Bucket) notFetched(ctx context.Context, name string, off int64, err error) (int, version, error) {
	var r minio.ErrorResponse
	errors.As(err, &r)
	switch {
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable && off == 0:
		return 0, version{}, nil // only an empty object lacks its first byte
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable, preconditionFailed(err):
		return 0, version{}, fmt.Errorf("read %s in %s: it was replaced since it was opened: %w", name, b, fs.ErrNotExist)
	}
	return 0, version{}, b.failed(ctx, "read", name, err)
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
