package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath is the length of the longest path that the kernel takes at once.
const maxPath = unix.PathMax - 1

// withShortPath calls fn with a path to the same that the kernel takes, however long path is: through a descriptor of the directory that it is in.
func withShortPath(path string, fn func(short string) error) error {
	if len(path) <= maxPath {
		return fn(path)
	}
	dir, name := filepath.Split(path)
	fd, err := openLong(filepath.Clean(dir))
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	err = fn(fmt.Sprintf("/proc/thread-self/fd/%d/%s", fd, name))
	var told *os.PathError
	if errors.As(err, &told) {
		told.Path = path
	}
	return err
}

// openLong opens a directory piece by piece.
func openLong(path string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd := unix.AT_FDCWD
	for {
		piece, rest := path, ""
		if len(path) > maxPath {
			cut := strings.LastIndexByte(path[:maxPath], '/')
			if cut <= 0 { // the name is longer than any of a filesystem
				if fd != unix.AT_FDCWD {
					unix.Close(fd)
				}
				return -1, unix.ENAMETOOLONG
			}
			piece, rest = path[:cut], path[cut+1:]
		}
		next, err := unix.Openat(fd, piece, flags, 0)
		if fd != unix.AT_FDCWD {
			unix.Close(fd)
		}
		if err != nil || rest == "" {
			return next, err
		}
		fd, path = next, rest
	}
}
