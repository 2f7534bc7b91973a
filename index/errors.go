package index

import (
	"errors"
	"fmt"
)

// The volume's state is held or written by somebody else.
var (
	// ErrInUse says that another process has the index open.
	ErrInUse = errors.New("the index is in use by another process; use the running mount, or end the other command first")
	// ErrNewerFormat says that the index was written by a newer version of the software.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
	// ErrClosed says that the DB was used after Close.
	ErrClosed = errors.New("index is closed")
)

// The caller asked for what the catalogue doesn't allow.
var (
	// ErrExists says that a snapshot of that name or id is in the catalogue already.
	ErrExists = errors.New("snapshot exists")
	// ErrNotFound says that there is no such snapshot or epoch.
	ErrNotFound = errors.New("not in the index")
	// ErrNotPending says that the snapshot isn't pending (any more), so it can neither be completed nor fail.
	ErrNotPending = errors.New("snapshot is not pending")
	// ErrTooMany says that the catalogue has no room for another snapshot.
	ErrTooMany = errors.New("too many snapshots: delete some first")
	// ErrPackInUse says that chunks are still said to be in a pack that was to be forgotten.
	ErrPackInUse = errors.New("pack still has chunks in the index")
)

// ErrCorrupt is the class of all errors that mean damaged stored data; each is a *CorruptError.
var ErrCorrupt = errors.New("index is damaged")

// CorruptError tells what is damaged. errors.Is(err, ErrCorrupt) finds it.
type CorruptError struct {
	What   string // which part of the index
	Reason string
	Err    error // cause; may be nil
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%v: %s: %s", ErrCorrupt, e.What, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

func corrupt(what, reason string, err error) error {
	return &CorruptError{What: what, Reason: reason, Err: err}
}
