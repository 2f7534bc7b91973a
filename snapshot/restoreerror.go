package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// RestoreError tells which paths a restore couldn't make what they are in the snapshot. It wraps the problems' errors, so that
// errors.Is(err, chunkstore.ErrCorrupt) tells whether the snapshot is damaged.
type RestoreError struct {
	Count    int // problems
	Problems []RestoreProblem
}

// maxProblems is the number of problems that are kept.
const maxProblems = 100

// RestoreProblem is one path of a RestoreError.
type RestoreProblem struct {
	Path   string  // relative to the destination
	Kept   string  // where the readable part of a damaged file is; empty: nowhere
	Ranges []Range // of a damaged file: what couldn't be read
	Err    error

	at destName // what Path is made of, if it is told
}

// Bounds of what is told of one path in a line.
const (
	maxToldPath  = 200
	maxToldError = 400
)

// shortened leaves out the middle of a text that is too long for a line.
func shortened(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n/2] + "[...]" + text[len(text)-n/2:]
}

func (e *RestoreError) Error() string {
	const shown = 10
	var b strings.Builder
	paths := "paths are"
	if e.Count == 1 {
		paths = "path is"
	}
	fmt.Fprintf(&b, "%d %s not restored, everything else is: ", e.Count, paths)
	damaged := false
	for i, p := range e.Problems[:min(shown, len(e.Problems))] {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", shortened(p.Path, maxToldPath), shortened(p.Err.Error(), maxToldError))
		if p.Kept != "" {
			fmt.Fprintf(&b, " (what could be read is in %s)", shortened(p.Kept, maxToldPath))
		}
		var src *sourceError
		damaged = damaged || errors.As(p.Err, &src)
	}
	if e.Count > shown {
		fmt.Fprintf(&b, "; and %d more", e.Count-shown)
	}
	if damaged {
		b.WriteString("; run verify, and restore what is damaged from another snapshot")
	}
	return b.String()
}

// Unwrap gives the errors of the problems.
func (e *RestoreError) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i := range e.Problems {
		errs[i] = e.Problems[i].Err
	}
	return errs
}

// sourceError is an error of the snapshot that is read, not of the destination.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "can't be read from the snapshot: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return &sourceError{err}
}

// problem notes what keeps one path from being restored. What would keep all others too ends the restore.
func (r *restorer) problem(p RestoreProblem) {
	if p.Err == nil || errors.Is(p.Err, errSkipped) || r.stopped() {
		return // what fails after the end fails because of it
	}
	if err := fatal(p.Err); err != nil {
		r.cancel(fmt.Errorf("%s: %w", shortened(p.at.path(), maxToldPath), err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.failed.Count++
	if len(r.mu.failed.Problems) < maxProblems {
		p.Path, p.at = p.at.path(), destName{}
		r.mu.failed.Problems = append(r.mu.failed.Problems, p)
	}
}

// fatal gives an error that concerns the whole destination, with what to do; nil for others.
func fatal(err error) error {
	var src *sourceError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &src):
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: make room, or choose a destination with more, and run the same restore again: it writes only what is missing", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: mount the destination's filesystem for writing", err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ESHUTDOWN):
		return fmt.Errorf("%w: the destination's disk or filesystem fails; look into the kernel's log, or choose another destination", err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: allow more open files (ulimit -n)", err)
	}
	return nil
}
