package hold

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoHolder: Attach was called in a process that no holder started.
	ErrNoHolder = errors.New("not started by a holder: this command is internal, use graphvol mount")

	// ErrRestart: Session.Serve ended because the holder wants to start another server. The process should close its files and exit.
	ErrRestart = errors.New("the holder starts another server")

	// ErrHolderGone: the holder doesn't live any more, so it can't do what was asked. The mount serves on.
	ErrHolderGone = errors.New("the holder is gone")

	// ErrInUse: a live graphvol process has the mount or the state directory.
	ErrInUse = errors.New("in use by a running graphvol")

	// ErrNotMounted: there is no graphvol mount at the path.
	ErrNotMounted = errors.New("not a graphvol mount")

	// ErrGaveUp: the server died again and again as soon as it was started.
	ErrGaveUp = errors.New("the server keeps dying")
)

// BusyError says who keeps a mount from being unmounted.
type BusyError struct {
	Point     string
	Users     []User   // processes; those of other users are missing when the caller isn't root
	Submounts []string // mount points below Point
}

// ElsewhereError says that a mount is gone here, and lives on in other mount namespaces: those of containers that were started while it was there, say.
type ElsewhereError struct {
	Point  string
	Server int // the process that goes on
	Found  []Elsewhere
}

// Error names the first.
func (e *ElsewhereError) Error() string {
	more := ""
	if n := len(e.Found) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	f := e.Found[0]
	return fmt.Sprintf("%s is unmounted here, but the mount namespace of %s (pid %d)%s still has it, so its server (pid %d) goes on: end that process, or nsenter -t %d -m umount %s",
		e.Point, f.Command, f.PID, more, e.Server, f.PID, f.Point)
}

// Error names up to four users.
func (e *BusyError) Error() string {
	var who []string
	for _, u := range e.Users {
		who = append(who, u.String())
	}
	for _, s := range e.Submounts {
		who = append(who, "the mount at "+s)
	}
	const most = 4
	if n := len(who) - most; n > 0 {
		who = append(who[:most], fmt.Sprintf("%d more", n))
	}
	if len(who) == 0 {
		return fmt.Sprintf("%s is busy, but no process that uses it can be seen: try again as root, or look for loop devices and swap files in it", e.Point)
	}
	return fmt.Sprintf("%s is busy: used by %s; end them and try again", e.Point, strings.Join(who, ", "))
}
