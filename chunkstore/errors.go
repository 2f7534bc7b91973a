package chunkstore

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that the index knows no chunk of that id.
	ErrNotFound = errors.New("chunk not found")
	// ErrCorrupt is the class of all errors that mean damaged stored data; each is a *CorruptError.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrNewerFormat says that a pack was written by a newer version of the software.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
	// ErrTooLarge says that a chunk is longer than MaxChunk.
	ErrTooLarge = errors.New("chunk is too large")
	// ErrWriterClosed says that a Writer was used after Finish, Abort or Close.
	ErrWriterClosed = errors.New("chunk writer is closed")
)

// CorruptError tells what is damaged. errors.Is(err, ErrCorrupt) finds it.
type CorruptError struct {
	Pack   PackID
	Offset uint32 // of the record in the pack, or where in the pack the damage was seen; bytes
	Chunk  ID     // zero if the damage isn't within a chunk
	Reason string
	Err    error // cause; may be nil
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("pack %s, offset %d", e.Pack, e.Offset)
	if !e.Chunk.IsZero() {
		s += ", chunk " + e.Chunk.String()
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes every CorruptError an ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }
