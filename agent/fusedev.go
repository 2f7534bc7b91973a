package agent

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

const fuseDevice = "/dev/fuse"

// checkFuse says beforehand what a mount would fail of.
func checkFuse(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == 10 && unix.Minor(st.Rdev) == 229 {
			return nil
		}
		return &Error{codes.FailedPrecondition, path + " is not the FUSE device: remove it, and make the right one with mknod " + path + " c 10 229", nil}
	}
	what := ""
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		what = "is missing: load the kernel module (modprobe fuse), or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
	case errors.Is(err, unix.EACCES):
		what = "may not be opened by this user: mount as root, or allow it (chmod 666 " + path + ")"
	case errors.Is(err, unix.EPERM):
		what = "may not be opened in this container: start it with --device /dev/fuse --cap-add SYS_ADMIN"
	default:
		return fmt.Errorf("open %s: %w", path, err)
	}
	return &Error{codes.FailedPrecondition, path + " " + what, err}
}
