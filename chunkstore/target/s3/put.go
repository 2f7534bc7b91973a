package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"

	"github.com/minio/minio-go/v7"

	"graphvol/chunkstore/target"
)

// Put stores an object.
func (b *Bucket) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := target.CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.IfAbsent && src.Size() > smallPut {
		if err := b.absent(ctx, name); err != nil {
			return err
		}
	}
	var err error
	if src.Size() > b.single {
		err = b.putParts(ctx, name, src, o)
	} else {
		err = b.putWhole(ctx, name, src, o)
	}
	if o.IfAbsent && preconditionFailed(err) {
		return fmt.Errorf("store %s in %s: %w", name, b, target.ErrExists)
	}
	return err
}

// absent returns ErrExists if there is an object of that name. A server that refuses a long PUT may cut the connection before it has
// read everything, and its answer is lost then: that would look like an outage each time.
func (b *Bucket) absent(ctx context.Context, name string) error {
	_, _, err := b.fetch(ctx, name, "", make([]byte, 1), 0)
	switch {
	case err == nil:
		return fmt.Errorf("store %s in %s: %w", name, b, target.ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

func (b *Bucket) putWhole(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	p, err := b.read(src, 0, src.Size())
	if err != nil {
		return fmt.Errorf("store %s in %s: read its source: %w", name, b, err)
	}
	opts := putOptions(o)
	opts.DisableContentSha256 = true // the sums are here already: no signature for each piece
	_, err = b.core.PutObject(ctx, b.bucket, b.key(name), p.body, p.size, p.md5Base64(), p.sha256, opts)
	return b.sent(ctx, name, p, err)
}

// sent is how sending p ended.
func (b *Bucket) sent(ctx context.Context, name string, p *piece, err error) error {
	if rerr := p.body.stop(); rerr != nil {
		return fmt.Errorf("store %s in %s: read its source: %w", name, b, rerr)
	}
	if err != nil {
		return b.failed(ctx, "store", name, err)
	}
	return nil
}

func putOptions(o target.PutOptions) minio.PutObjectOptions {
	var opts minio.PutObjectOptions
	if o.IfAbsent {
		opts.SetMatchETagExcept("*")
	}
	return opts
}

// piece is a part of a source that is sent in one request.
type piece struct {
	body   *body
	size   int64
	md5    []byte
	sha256 string // empty with TLS, which guards the bytes as well
}

func (p *piece) md5Base64() string { return base64.StdEncoding.EncodeToString(p.md5) }
func (p *piece) etag() string      { return hex.EncodeToString(p.md5) }

// read makes a piece of n bytes at off. The source is read once for the sums, and once more to be sent.
func (b *Bucket) read(src io.ReaderAt, off, n int64) (*piece, error) {
	p := &piece{body: &body{r: io.NewSectionReader(src, off, n)}, size: n}
	m, s := md5.New(), hash.Hash(nil)
	w := io.Writer(m)
	if !b.secure {
		s = sha256.New()
		w = io.MultiWriter(m, s)
	}
	got, err := io.CopyBuffer(w, onlyReader{io.NewSectionReader(src, off, n)}, make([]byte, max(1, min(n, 256<<10))))
	if err == nil && got < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	p.md5 = m.Sum(nil)
	if s != nil {
		p.sha256 = hex.EncodeToString(s.Sum(nil))
	}
	return p, nil
}

// onlyReader keeps io.CopyBuffer from looking for more.
type onlyReader struct{ io.Reader }

// body gives a request the bytes of a source until stop: net/http may read on after a request has failed, when the source is its owner's again.
type body struct {
	mu  sync.Mutex
	r   io.Reader // nil: stopped
	err error     // the source's
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// stop returns the error of the source, if it had one.
func (b *body) stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
	return b.err
}
