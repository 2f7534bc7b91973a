// Package fusedev tells whether FUSE can be used, and what to do if not.
package fusedev

import (
	"errors"
	"fmt"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Path is the device.
const Path = "/dev/fuse"

// Error is why the device can't be used.
type Error struct {
	Problem string // what is wrong with which device, and what to do
	Fix     string // a command that does it
	Err     error  // may be nil
}

func (e *Error) Error() string { return e.Problem }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Check says beforehand what a mount would fail of. Its errors are of type *Error if it is known what to do.
func Check(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == 10 && unix.Minor(st.Rdev) == 229 {
			return nil
		}
		return &Error{path + " is not the FUSE device: remove it, and make the right one with mknod " + path + " c 10 229",
			"rm -r " + path + " && mknod -m 666 " + path + " c 10 229", nil}
	}
	what, fix := "", ""
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		what = "is missing: load the kernel module (modprobe fuse), or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
		fix = "modprobe fuse"
	case errors.Is(err, unix.EACCES):
		what = "may not be opened by this user: mount as root, or allow it (chmod 666 " + path + ")"
		fix = "chmod 666 " + path
	case errors.Is(err, unix.EPERM):
		what = "may not be opened in this container: start it with --device /dev/fuse --cap-add SYS_ADMIN"
	default:
		return fmt.Errorf("open %s: %w", path, err)
	}
	return &Error{path + " " + what, fix, err}
}

// Helper finds the setuid program with which users who aren't root mount.
func Helper() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "/usr/bin/fusermount3"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errors.New("mounting needs root, or the program fusermount3 (Debian's package fuse3)")
}
