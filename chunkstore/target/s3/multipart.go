package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore/target"
)

const (
	maxParts  = 10_000 // the protocol's
	atOnce    = 4
	abandoned = 24 * time.Hour // after which an upload that isn't this one's beginning is taken for dead
)

// parts is a long object on its way. The server keeps parts under the upload's id until it is completed or aborted.
type parts struct {
	b    *Bucket
	name string
	id   string
	src  target.Source
	each int64
	done []minio.CompletePart // by number - 1; no ETag: not there yet
	etag []string             // what the server calls a part of this content, as far as it was asked for
}

func (b *Bucket) putParts(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	u := &parts{b: b, name: name, src: src, each: max(b.part, (src.Size()+maxParts-1)/maxParts)}
	n := (src.Size() + u.each - 1) / u.each
	u.done, u.etag = make([]minio.CompletePart, n), make([]string, n)
	if err := u.resume(ctx); err != nil {
		return err
	}
	if u.id == "" {
		id, err := b.core.NewMultipartUpload(ctx, b.bucket, b.key(name), minio.PutObjectOptions{})
		if err != nil {
			return b.failed(ctx, "begin to store", name, err)
		}
		u.id = id
	}
	err := u.send(ctx)
	if err == nil {
		_, err = b.core.CompleteMultipartUpload(ctx, b.bucket, b.key(name), u.id, u.done, putOptions(o))
		if err != nil {
			err = b.failed(ctx, "complete", name, err)
		}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, target.ErrUnavailable) {
		// It won't be continued. What can't be aborted is for the bucket's rules to remove; the error above matters more.
		_ = b.core.AbortMultipartUpload(ctx, b.bucket, b.key(name), u.id)
	}
	return err
}

// length is that of a part, from 0.
func (u *parts) length(i int) int64 { return min(u.each, u.src.Size()-int64(i)*u.each) }

// send sends the parts that aren't there yet. After an error no more are begun, but those on their way arrive, for the next Put to find.
func (u *parts) send(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	var failed atomic.Bool
	for i := range u.done {
		if u.done[i].ETag != "" {
			continue
		}
		g.Go(func() error {
			if failed.Load() {
				return nil
			}
			err := u.sendPart(ctx, i)
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	return g.Wait()
}

func (u *parts) sendPart(ctx context.Context, i int) error {
	p, err := u.b.read(u.src, int64(i)*u.each, u.length(i))
	if err != nil {
		return fmt.Errorf("store %s in %s: read its source: %w", u.name, u.b, err)
	}
	part, err := u.b.core.PutObjectPart(ctx, u.b.bucket, u.b.key(u.name), u.id, i+1, p.body, p.size,
		minio.PutObjectPartOptions{Md5Base64: p.md5Base64(), Sha256Hex: p.sha256, DisableContentSha256: true})
	if err := u.b.sent(ctx, u.name, p, err); err != nil {
		return err
	}
	u.done[i] = minio.CompletePart{PartNumber: i + 1, ETag: part.ETag}
	return nil
}

// resume looks for an upload of this object that was cut short. It is no error if there is none, or if that can't be asked.
func (u *parts) resume(ctx context.Context) error {
	var keyMarker, idMarker string
	for {
		r, err := u.b.core.ListMultipartUploads(ctx, u.b.bucket, u.b.key(u.name), keyMarker, idMarker, "", 0)
		if err != nil {
			err = u.b.failed(ctx, "look for unfinished uploads of", u.name, err)
			if errors.Is(err, target.ErrDenied) {
				return nil
			}
			return err
		}
		for _, up := range r.Uploads {
			if up.Key != u.b.key(u.name) {
				continue
			}
			if ok, err := u.take(ctx, up.UploadID); ok || err != nil {
				return err
			}
			if !up.Initiated.IsZero() && time.Since(up.Initiated) > abandoned {
				_ = u.b.core.AbortMultipartUpload(ctx, u.b.bucket, up.Key, up.UploadID)
			}
		}
		if !r.IsTruncated || r.NextKeyMarker == "" {
			return nil
		}
		keyMarker, idMarker = r.NextKeyMarker, r.NextUploadIDMarker
	}
}

// take makes an upload this one's if all its parts are this object's.
func (u *parts) take(ctx context.Context, id string) (bool, error) {
	done := make([]minio.CompletePart, len(u.done))
	for marker := 0; ; {
		r, err := u.b.core.ListObjectParts(ctx, u.b.bucket, u.b.key(u.name), id, marker, 0)
		if err != nil {
			if codeOf(err) == "NoSuchUpload" { // it has just ended
				return false, nil
			}
			err = u.b.failed(ctx, "list the parts of", u.name, err)
			if errors.Is(err, target.ErrDenied) {
				return false, nil
			}
			return false, err
		}
		for _, p := range r.ObjectParts {
			if err := ctx.Err(); err != nil { // reading the source takes its time
				return false, u.b.failed(ctx, "continue to store", u.name, err)
			}
			if same, err := u.same(p); !same || err != nil {
				return false, err
			}
			done[p.PartNumber-1] = minio.CompletePart{PartNumber: p.PartNumber, ETag: p.ETag}
		}
		if !r.IsTruncated || r.NextPartNumberMarker <= marker {
			break
		}
		marker = r.NextPartNumberMarker
	}
	u.id, u.done = id, done
	return true, nil
}

// same tells whether a part on the server has the content that it would get from the source.
func (u *parts) same(p minio.ObjectPart) (bool, error) {
	i := p.PartNumber - 1
	if i < 0 || i >= len(u.done) || p.Size != u.length(i) {
		return false, nil
	}
	if u.etag[i] == "" {
		piece, err := u.b.read(u.src, int64(i)*u.each, u.length(i))
		if err != nil {
			return false, fmt.Errorf("store %s in %s: read its source: %w", u.name, u.b, err)
		}
		u.etag[i] = piece.etag()
	}
	return strings.Trim(p.ETag, `"`) == u.etag[i], nil
}
