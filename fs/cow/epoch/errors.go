package epoch

import (
	"errors"
	"fmt"
)

// ErrNewerFormat says that the files of an epoch were written by a newer version of the software.
var ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")

// ErrCorrupt is the class of all errors that mean damaged files; each is a *CorruptError.
var ErrCorrupt = errors.New("files of an epoch are damaged")

// CorruptError tells what is damaged. errors.Is(err, ErrCorrupt) finds it.
type CorruptError struct {
	Path   string
	Reason string
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%v: %s: %s", ErrCorrupt, e.Path, e.Reason) }

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

var errClosed = errors.New("epoch is closed")
