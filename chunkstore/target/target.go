// Package target is where packs and manifests are kept: a flat space of named, immutable objects.
//
// # Contract of every target
//
// A name is one or more elements joined by slashes; an element is made of the letters a-z, A-Z, digits, '.', '_' and
// '-', is no longer than 200 bytes and doesn't begin with a dot. No name is another one followed by a slash and more. An object appears under
// its name whole and durable, or not at all: Put and Upload.Commit must not return nil before a power cut can no longer take the object away.
// Storing under a name that is taken replaces the object as atomically. Open objects stay readable after they were
// removed or replaced, at least until the reader notices by an error that wraps fs.ErrNotExist.
// All methods may be called from several goroutines; one Upload belongs to one goroutine at a time.
//
// # Errors
//
// What a caller can do about an error is one of these; they are found by errors.Is:
//
//   - fs.ErrNotExist: there is no object of that name.
//   - ErrExists: there is one already, and PutOptions.IfAbsent asked for none.
//   - ErrUnavailable: the target can't be reached, or asks to be left alone for a while. The same call may succeed later, so it says nothing about
//     what is stored.
//   - ErrDenied: the target refuses; it will until somebody changes rights or credentials.
//   - all others are those of the medium: what is stored can't be read, or written, there.
//
// A new kind of target is checked by the suite in targettest.
package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

var (
	// ErrBadName says that a name breaks the rules in the package documentation.
	ErrBadName = errors.New("bad object name")
	// ErrExists says that an object that must not be there is there.
	ErrExists = errors.New("object exists")
	// ErrUnavailable says that a target can't be reached at the moment.
	ErrUnavailable = errors.New("the target is not available")
	// ErrDenied says that a target refuses what was asked for.
	ErrDenied = errors.New("the target denies access")
)

// Info is one row of a listing. Size is in bytes.
type Info struct {
	Name string
	Size int64
}

// Source is what an object is made of. It may be read several times, from several goroutines, and gives the same each time.
type Source interface {
	io.ReaderAt
	// Size is the length in bytes.
	Size() int64
}

// PutOptions say how to store an object.
type PutOptions struct {
	IfAbsent bool // ErrExists if there is an object of that name; of several who do so at the same time, one succeeds
}

// Target stores named immutable objects durably.
type Target interface {
	// Put stores an object. After an error other than ErrExists it may be there or not; a former one of that name is whole or wholly replaced.
	Put(ctx context.Context, name string, src Source, o PutOptions) error
	// Open opens an object for reading; the error wraps fs.ErrNotExist if there is none of that name.
	Open(ctx context.Context, name string) (Object, error)
	// List returns the objects whose names begin with prefix, ascending by name. Unfinished uploads aren't listed.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Remove removes objects. It is no error if one isn't there. After another error some may be removed.
	Remove(ctx context.Context, names ...string) error
	// String names the target for people. It has no secrets.
	String() string
}

// Local is a target on this machine, to which objects can be written as they come.
type Local interface {
	Target
	// Create begins an object that has no name yet.
	Create(ctx context.Context) (Upload, error)
	// SyncRemoved makes the removal of objects durable whose names are dir, a slash, and one element. Until it returns, they may
	// come back after a power cut.
	SyncRemoved(ctx context.Context, dir string) error
}

// Upload is an object being written. Writes are buffered, so short ones are cheap; an error may show in a later call. Exactly one of Commit and Abort ends it; Abort after Commit does nothing.
type Upload interface {
	io.Writer
	// Commit makes the object durable under name. After an error it may be there or not; a former one of that name
	// is whole or wholly replaced.
	Commit(ctx context.Context, name string) error
	// Abort drops what was written.
	Abort() error
}

// Object is an open object.
type Object interface {
	// ReadAt is io.ReaderAt's, except that it ends when ctx does.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	io.Closer
	// Size is the object's length in bytes.
	Size() int64
}

// Streamer is what an Object may be besides: one that is cheaper to read in order than in pieces, because each piece is a request.
type Streamer interface {
	// Stream reads the object from off on, for as long as ctx lasts. Whoever wants no more closes it.
	Stream(ctx context.Context, off int64) (io.ReadCloser, error)
}

type readingOnKey struct{}

// ReadingOn says that whoever reads with the context will want most of the objects that it touches, as a restore does. Targets that are far away get more at
// a time then.
func ReadingOn(ctx context.Context) context.Context {
	return context.WithValue(ctx, readingOnKey{}, true)
}

// IsReadingOn tells whether a context is one of ReadingOn's.
func IsReadingOn(ctx context.Context) bool { return ctx.Value(readingOnKey{}) != nil }

// Put stores data under name, durably.
func Put(ctx context.Context, t Target, name string, data []byte) error {
	return t.Put(ctx, name, bytes.NewReader(data), PutOptions{})
}

// Get reads a whole object of at most limit bytes.
func Get(ctx context.Context, t Target, name string, limit int64) ([]byte, error) {
	o, err := t.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if o.Size() > limit {
		return nil, fmt.Errorf("%s: object %s has %d bytes, more than the %d it may have", t, name, o.Size(), limit)
	}
	p := make([]byte, o.Size())
	if n, err := o.ReadAt(ctx, p, 0); n < len(p) {
		return nil, fmt.Errorf("%s: read object %s: %w", t, name, err)
	}
	return p, nil
}

// Bytes is an object in memory.
func Bytes(p []byte) Object { return bytesObject{bytes.NewReader(p)} }

type bytesObject struct{ r *bytes.Reader }

func (o bytesObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return o.r.ReadAt(p, off)
}

func (o bytesObject) Close() error { return nil }
func (o bytesObject) Size() int64  { return o.r.Size() }

// Reader reads an object for as long as a context lasts.
func Reader(ctx context.Context, o Object) io.ReaderAt { return reader{ctx, o} }

type reader struct {
	ctx context.Context
	obj Object
}

func (r reader) ReadAt(p []byte, off int64) (int, error) { return r.obj.ReadAt(r.ctx, p, off) }

// CheckName returns an error that wraps ErrBadName if name breaks the rules of names.
func CheckName(name string) error {
	for elem := range strings.SplitSeq(name, "/") {
		if !validElem(elem) {
			return &fs.PathError{Op: "name", Path: name, Err: ErrBadName}
		}
	}
	return nil
}

func validElem(s string) bool {
	if s == "" || s[0] == '.' || len(s) > 200 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
