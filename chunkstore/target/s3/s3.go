// Package s3 is a target in a bucket of Amazon S3, or of anything else that speaks its protocol.
//
// # Requests
//
// Every request costs, so what each call needs is fixed:
//
//   - Put of up to 64 MiB is one PUT. Longer objects go up in parts of 16 MiB, four at a time, straight from the source. A Put that was cut short is
//     continued by the next one of the same name: what is there of it is found by the MD5 of each part, so nothing has to be remembered here.
//     With IfAbsent, more than 16 KiB take a GET before.
//   - Open is one GET of the first 16 KiB, which tells the size; reads within these need no other. All others are one GET each,
//     of the very object that was opened (If-Match).
//   - List takes one request for each 1,000 objects, Remove one for as many.
//
// Nothing is tried again here: who calls knows whether it is worth it. An object may be in the bucket although Put has failed.
//
// # Integrity
//
// What is sent carries its MD5 (and its SHA-256 where TLS doesn't guard it), so the server refuses what was damaged on the way. PutOptions.IfAbsent
// is If-None-Match; a server that ignores it silently is no target for heads.
package s3

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"graphvol/chunkstore/target"
)

const (
	// singlePut is the longest object that is sent in one request, and partSize what is sent in one of a longer one.
	singlePut = 64 << 20
	partSize  = 16 << 20
	// smallPut is what fits into the buffers of a connection, so that it can be refused without being read.
	smallPut = 16 << 10
	// firstRead is what Open gets.
	firstRead = 16 << 10
)

// Bucket is a target below a prefix of a bucket.
type Bucket struct {
	core     minio.Core
	bucket   string
	prefix   string // of keys: empty, or ends in a slash
	host     string // for messages
	secure   bool
	single   int64 // singlePut and partSize, but in tests
	part     int64
	counters counters
	idle     func() // closes idle connections
}

var (
	_ target.Target = (*Bucket)(nil)
	_ target.Object = (*object)(nil)
)

// Open opens a target in a bucket that exists. It asks the bucket for one name below the prefix, so that wrong names, rights and credentials show here.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	at, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", cfg.Bucket, err)
	}
	b := &Bucket{bucket: cfg.Bucket, host: at.host, secure: at.secure, single: singlePut, part: partSize}
	if cfg.Prefix != "" {
		b.prefix = cfg.Prefix + "/"
	}
	tr := newTransport(cfg.Stall)
	b.idle = tr.CloseIdleConnections
	client, err := minio.New(at.host, &minio.Options{
		Creds:        cfg.credentials(),
		Secure:       at.secure,
		Region:       at.region,
		BucketLookup: at.lookup,
		Transport:    &counting{tr, &b.counters},
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b, err)
	}
	client.SetAppInfo("graphvol", "1")
	b.core = minio.Core{Client: client}
	for _, err := range b.keys(ctx, b.prefix, 1) {
		if err != nil {
			b.idle()
			return nil, b.failed(ctx, "open the bucket", "", err)
		}
		break
	}
	return b, nil
}

// String names bucket, prefix and server.
func (b *Bucket) String() string {
	return strings.TrimSuffix("s3://"+b.bucket+"/"+b.prefix, "/") + " at " + b.host
}

// Close closes idle connections. The bucket may be used after it.
func (b *Bucket) Close() error {
	b.idle()
	return nil
}

// Requests returns how many requests were sent since Open began.
func (b *Bucket) Requests() Requests { return b.counters.read() }

func (b *Bucket) key(name string) string { return b.prefix + name }

// keys lists objects, batch of them with each request (0: as many as the server gives).
func (b *Bucket) keys(ctx context.Context, prefix string, batch int) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		owner := false
		for o := range b.core.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{
			Prefix: prefix, Recursive: true, MaxKeys: batch, FetchOwner: &owner,
		}) {
			if !yield(o, o.Err) || o.Err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil { // the library ends the listing as if it were complete
			yield(minio.ObjectInfo{}, err)
		}
	}
}

// List lists the objects whose names begin with prefix. What has no valid name isn't the target's.
func (b *Bucket) List(ctx context.Context, prefix string) ([]target.Info, error) {
	var out []target.Info
	for o, err := range b.keys(ctx, b.key(prefix), 0) {
		if err != nil {
			return nil, b.failed(ctx, "list", prefix, err)
		}
		if name, ok := strings.CutPrefix(o.Key, b.prefix); ok && target.CheckName(name) == nil {
			out = append(out, target.Info{Name: name, Size: o.Size})
		}
	}
	slices.SortFunc(out, func(a, b target.Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove removes objects, 1,000 with each request.
func (b *Bucket) Remove(ctx context.Context, names ...string) error {
	left := make(map[string]bool, len(names)) // keys that no answer was about
	for _, name := range names {
		if err := target.CheckName(name); err != nil {
			return err
		}
		left[b.key(name)] = true
	}
	if len(names) == 0 {
		return ctx.Err()
	}
	results, err := b.core.RemoveObjectsWithIter(ctx, b.bucket, objects(b, names), minio.RemoveObjectsOptions{})
	if err != nil {
		return b.failed(ctx, "remove", "", err)
	}
	var failed string
	count := 0
	for r := range results {
		delete(left, r.ObjectName)
		if r.Err == nil || codeOf(r.Err) == minio.NoSuchKey {
			continue
		}
		if count++; count == 1 {
			failed, err = strings.TrimPrefix(r.ObjectName, b.prefix), r.Err
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return b.failed(ctx, fmt.Sprintf("remove %d objects, of which %d failed; the first", len(names), count), failed, err)
	}
	// Where the library removes one by one, it keeps quiet about those that were missing.
	if len(left) > 0 && !s3utils.IsGoogleEndpoint(*b.core.EndpointURL()) {
		return fmt.Errorf("remove objects in %s: the answer doesn't mention %d of %d objects", b, len(left), len(names))
	}
	return nil
}

func objects(b *Bucket, names []string) iter.Seq[minio.ObjectInfo] {
	return func(yield func(minio.ObjectInfo) bool) {
		for _, name := range names {
			if !yield(minio.ObjectInfo{Key: b.key(name)}) {
				return
			}
		}
	}
}
