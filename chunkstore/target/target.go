// Package target is where packs and manifests are kept: a flat space of named, immutable objects.
//
// # Contract of every target
//
// A name is one or more elements joined by slashes; an element is made of the letters a-z, A-Z, digits, '.', '_' and
// '-', is no longer than 200 bytes and doesn't begin with a dot. An object appears under its name whole and
// durable, or not at all: Upload.Commit must not return nil before a power cut can no longer take the object away.
// Committing over an existing name replaces it as atomically. Open objects stay readable after they were
// removed or replaced, at least until the reader notices by an error that wraps fs.ErrNotExist.
// All methods may be called from several goroutines; one Upload belongs to one goroutine at a time.
//
// A new kind of target is checked by the suite in targettest.
package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// ErrBadName says that a name breaks the rules in the package documentation.
var ErrBadName = errors.New("bad object name")

// Info is one row of a listing. Size is in bytes.
type Info struct {
	Name string
	Size int64
}

// Target stores named immutable objects durably.
type Target interface {
	// Create begins an object that has no name yet.
	Create(ctx context.Context) (Upload, error)
	// Open opens an object for reading; the error wraps fs.ErrNotExist if there is none of that name.
	Open(ctx context.Context, name string) (Object, error)
	// List returns the objects whose names begin with prefix, ascending by name. Unfinished uploads aren't listed.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Remove removes an object; the error wraps fs.ErrNotExist if there is none of that name.
	// It may come back after a power cut until SyncRemoved returns.
	Remove(ctx context.Context, name string) error
	// SyncRemoved makes the removal of objects durable whose names are dir, a slash, and one element.
	SyncRemoved(ctx context.Context, dir string) error
	// String names the target for people.
	String() string
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
	io.ReaderAt
	io.Closer
	// Size is the object's length in bytes.
	Size() int64
}

// Put stores data under name, durably, in one call.
func Put(ctx context.Context, t Target, name string, data []byte) error {
	u, err := t.Create(ctx)
	if err != nil {
		return err
	}
	if _, err := u.Write(data); err != nil {
		return errors.Join(err, u.Abort())
	}
	return u.Commit(ctx, name)
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
	if n, err := o.ReadAt(p, 0); n < len(p) {
		return nil, fmt.Errorf("%s: read object %s: %w", t, name, err)
	}
	return p, nil
}

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
