package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"graphvol/fs/hold"
)

// ErrNoVolume says that a path is no volume; the message tells what to do.
var ErrNoVolume = errors.New("not a volume")

// Place says where a volume's state is, and where it is mounted, if it is.
type Place struct {
	State string
	Mount hold.Mount // Point is empty: not mounted
}

// Mounted reports whether a mount of this volume exists, be it alive or stale.
func (p Place) Mounted() bool { return p.Mount.Point != "" }

// Resolve finds the volume that a user names by its mount point, its backing directory or its state directory; all
// three may be one path, or symbolic links, or relative.
func Resolve(volume string) (Place, error) {
	mounts, err := hold.Mounts()
	if err != nil {
		return Place{}, err
	}
	return resolve(volume, mounts)
}

func resolve(volume string, mounts []hold.Mount) (Place, error) {
	path, err := Canonical(volume)
	if err != nil {
		return Place{}, cannotUse(volume, err)
	}
	if m, ok := mountAt(mounts, path); ok && isVolume(m) {
		return Place{State: m.Source, Mount: m}, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		if state := DefaultState(path); errors.Is(err, os.ErrNotExist) && IsState(state) {
			return place(state, mounts), nil
		}
		return Place{}, cannotUse(volume, err)
	}
	if !st.IsDir() {
		return Place{}, fmt.Errorf("%w: %s is not a directory; name the mount point, the backing directory or the state directory", ErrNoVolume, path)
	}
	for _, state := range []string{path, DefaultState(path)} {
		if IsState(state) || hasStore(state) {
			return place(state, mounts), nil
		}
	}
	return resolveElsewhere(path, mounts)
}

// isVolume reports whether this is a graphvol mount; its source is the state directory then.
func isVolume(m hold.Mount) bool { return m.FSType == hold.FSType }

// mountAt gives the topmost mount at exactly this path.
func mountAt(mounts []hold.Mount, path string) (hold.Mount, bool) {
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].Point == path {
			return mounts[i], true
		}
	}
	return hold.Mount{}, false
}

// resolveElsewhere looks for the path among the mounted volumes' backing directories, and says the best it can about
// one that is none.
func resolveElsewhere(path string, mounts []hold.Mount) (Place, error) {
	for _, m := range mounts {
		if !isVolume(m) {
			continue
		}
		if f, err := ReadFacts(m.Source); err == nil && f.Backing == path {
			return Place{State: m.Source, Mount: m}, nil
		}
		if within(path, m.Point) {
			return Place{}, fmt.Errorf("%w: %s lies inside the volume mounted at %s; name that one", ErrNoVolume, path, m.Point)
		}
	}
	return Place{}, fmt.Errorf("%w: %s is neither a graphvol mount nor a state directory, and there is no %s; mount it first (graphvol mount %s MOUNT), or name the state directory that was given to mount with --state",
		ErrNoVolume, path, DefaultState(path), path)
}

// place finds the mount of a state directory. The newest counts.
func place(state string, mounts []hold.Mount) Place {
	for i := len(mounts) - 1; i >= 0; i-- {
		if isVolume(mounts[i]) && mounts[i].Source == state {
			return Place{State: state, Mount: mounts[i]}
		}
	}
	return Place{State: state}
}

func cannotUse(volume string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s does not exist; name a mount point, a backing directory or a state directory", ErrNoVolume, volume)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s may not be read by this user; run graphvol as the user who mounted the volume, or as root", volume)
	case errors.Is(err, unix.ENOTCONN):
		return fmt.Errorf("%s lies on a mount whose server is dead; unmount that (umount -l) and try again", volume)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a loop of symbolic links", volume)
	}
	return fmt.Errorf("cannot use %s: %w", volume, err)
}
