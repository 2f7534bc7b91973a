package agent

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/index"
	"graphvol/snapshot"
)

// indexUnusable tells whether an error means that the index is damaged, lost, or on a medium that can't be read: what graphvol rebuild is for.
func indexUnusable(err error) bool {
	return errors.Is(err, index.ErrCorrupt) || errors.Is(err, snapshot.ErrIndexLost) || errors.Is(err, unix.EIO)
}

// indexError says what is wrong with the index, and what to do.
func indexError(state, advice string, err error) *Error {
	cause := err.Error()
	var c *index.CorruptError
	switch {
	case errors.As(err, &c):
		cause = c.Error()
	case errors.Is(err, snapshot.ErrIndexLost):
	case errors.Is(err, unix.EIO):
		cause = unix.EIO.Error()
	}
	return &Error{codes.DataLoss, fmt.Sprintf("%s can't be used: %s: %s", filepath.Join(state, snapshot.IndexName), cause, advice), err}
}

// volumeName is what a user calls a volume with this state directory in a command that works without a mount.
func volumeName(backing, state string) string {
	if backing != "" && DefaultState(backing) == state {
		return backing
	}
	return state
}

// rebuildOffline is the advice for a volume that isn't mounted.
func rebuildOffline(backing, state string) string {
	return "run graphvol rebuild " + volumeName(backing, state)
}

// rebuildMounted is the advice for one that is.
func rebuildMounted(o MountOptions) string {
	return fmt.Sprintf("the volume works, but without snapshots; unmount it (graphvol umount %s), then %s", o.Mount, rebuildOffline(o.Backing, o.State))
}
