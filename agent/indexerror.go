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
	return errors.Is(err, index.ErrCorrupt) || errors.Is(err, snapshot.ErrIndexLost) || unreadable(err)
}

// indexError says what is wrong with the index, and what to do.
func indexError(state, advice string, err error) *Error {
	cause := err.Error()
	var c *index.CorruptError
	switch {
	case unreadable(err):
		cause = unix.EIO.Error()
	case errors.As(err, &c):
		cause = c.Error()
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

// unreadable tells whether it is the disk that fails, which may pass.
func unreadable(err error) bool { return errors.Is(err, unix.EIO) }

// rebuildOffline is what mends the index of a volume that isn't mounted.
func rebuildOffline(backing, state string) string {
	return "run graphvol rebuild " + volumeName(backing, state)
}

// adviceOffline says what to do about an index that can't be used, if the volume isn't mounted.
func adviceOffline(backing, state string, err error) string {
	rebuild := rebuildOffline(backing, state)
	if unreadable(err) {
		return "see to its disk (dmesg tells more) and try again; if the file itself is lost, " + rebuild
	}
	return rebuild
}

// adviceMounted is the same for a volume that is mounted.
func adviceMounted(o MountOptions, err error) string {
	rebuild := fmt.Sprintf("unmount it (graphvol umount %s), then %s", o.Mount, rebuildOffline(o.Backing, o.State))
	if unreadable(err) {
		rebuild = fmt.Sprintf("when its disk works again (dmesg tells more) run graphvol upgrade %s; if the file itself is lost, %s", o.Mount, rebuild)
	}
	return "the volume works, but without snapshots; " + rebuild
}
