package erasure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"graphvol/chunkstore/target"
)

// errSlow is of members that don't answer in time.
var errSlow = fmt.Errorf("no answer in time: %w", target.ErrUnavailable)

// Missing is a shard or copy that isn't where it should be.
type Missing struct {
	Shard  int // -1: a copy
	Member string
	Err    error
}

func (m Missing) String() string {
	what := "copy"
	if m.Shard >= 0 {
		what = fmt.Sprintf("shard %d", m.Shard)
	}
	return fmt.Sprintf("%s on %s: %v", what, m.Member, m.Err)
}

func list(missing []Missing) string {
	out := make([]string, len(missing))
	for i, m := range missing {
		out[i] = m.String()
	}
	return strings.Join(out, "; ")
}

// DegradedError says that an object is stored and can be read, but may not survive what it should. It wraps nothing: to no caller is
// it a failed Put.
type DegradedError struct {
	Name    string
	Missing []Missing
}

func (e *DegradedError) Error() string {
	return fmt.Sprintf("object %s is stored, but not at full strength: %s", e.Name, list(e.Missing))
}

// LostError says that too little of an object is left, or can be reached, to read it.
type LostError struct {
	Name    string
	Layout  Layout // zero for copies
	Missing []Missing
	class   error // target.ErrUnavailable, fs.ErrNotExist or nil
}

func (e *LostError) Error() string {
	need := "none of its copies can be read"
	if e.Layout.Data > 0 {
		need = fmt.Sprintf("%d of its %d shards can't be read, and it takes %d", len(e.Missing), e.Layout.total(), e.Layout.Data)
	}
	state := "is damaged"
	switch e.class {
	case target.ErrUnavailable:
		state = "can't be read now"
	case fs.ErrNotExist:
		state = "was removed or replaced"
	}
	return fmt.Sprintf("object %s %s: %s: %s", e.Name, state, need, list(e.Missing))
}

// Unwrap returns the class.
func (e *LostError) Unwrap() error { return e.class }

// permanent says whether asking again soon is useless.
func permanent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errDamaged) || errors.Is(err, ErrNewerFormat)
}

// outage says whether an error tells something about the member, not about one object.
func outage(err error) bool {
	return errors.Is(err, target.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}
