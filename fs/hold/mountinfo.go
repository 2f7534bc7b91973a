package hold

import (
	"errors"
	"path/filepath"
	"syscall"

	"graphvol/internal/mountinfo"
)

// FSType is what mountinfo and df call a mounted volume.
const FSType = "fuse.graphvol"

// Mount is something that is mounted.
type Mount = mountinfo.Mount

// Mounts lists what is mounted in this process's mount namespace, in the kernel's order: a mount that covers another comes later.
func Mounts() ([]Mount, error) { return mountinfo.Read() }

// Volumes lists the mounted volumes.
func Volumes() ([]Mount, error) {
	all, err := Mounts()
	if err != nil {
		return nil, err
	}
	var vols []Mount
	for _, m := range all {
		if m.FSType == FSType {
			vols = append(vols, m)
		}
	}
	return vols, nil
}

// MountAt returns the mount that a look-up of path meets: the last one at exactly that path. It works on dead mounts too, and asks no server
// if path is the mount point's absolute path. The second result is false if path is no mount point.
func MountAt(path string) (Mount, bool, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Mount{}, false, err
	}
	m, ok, err := mountAt(abs)
	if ok || err != nil {
		return m, ok, err
	}
	if abs, err = resolve(abs); err != nil {
		return Mount{}, false, err
	}
	return mountAt(abs)
}

// mountAt is MountAt for a path that is absolute and free of symbolic links.
func mountAt(abs string) (found Mount, ok bool, err error) {
	all, err := Mounts()
	if err != nil {
		return Mount{}, false, err
	}
	for _, m := range all {
		if m.Point == abs {
			found, ok = m, true
		}
	}
	return found, ok, nil
}

// resolve frees an absolute path of symbolic links. The last component of a dead mount, or of one that its owner keeps others out of (root
// too), cannot be looked at, so then only what is above it is resolved.
func resolve(abs string) (string, error) {
	real, err := filepath.EvalSymlinks(abs)
	if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.EACCES) {
		return real, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}
