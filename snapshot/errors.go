package snapshot

import (
	"errors"

	"graphvol/chunkstore"
)

var (
	// ErrNoSnapshot says that a reference names no snapshot, or more than one.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrBadName says that a name can't be that of a snapshot.
	ErrBadName = errors.New("bad snapshot name")
	// ErrBadTag says that something can't be a snapshot's tag.
	ErrBadTag = errors.New("bad tag")
	// ErrNotComplete says that a snapshot can't be read, because it isn't sealed yet or never will be.
	ErrNotComplete = errors.New("snapshot is not complete")
	// ErrNewerFormat says that a manifest was written by a newer version of the software.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
	// ErrIndexLost says that there is no index, and that a new one would hide what is in the store.
	ErrIndexLost = errors.New("the index is missing or empty")
	// ErrBadManifest says that a manifest isn't one.
	ErrBadManifest = errors.New("bad manifest")
	// ErrTooManyNames says that snapshots have more names than can be compared, which only directories full of hard links have.
	ErrTooManyNames = errors.New("too many hard links to be compared; compare directories below MOUNT/.snapshots instead")
)

// Damaged tells whether an error means that what was stored can't be had as it was. It may wrap fs.ErrNotExist too: a pack is missing then, not a file.
func Damaged(err error) bool { return errors.Is(err, chunkstore.ErrCorrupt) }
