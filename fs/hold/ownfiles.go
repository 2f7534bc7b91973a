package hold

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// WithOwnFiles runs fn on a thread that shares no descriptors with the rest of the process, and returns fn's error. A server must do all that opens files
// of its own mount in it.
//
// A process that is killed waits for the answers to its own requests to the mount, and for FLUSH when its files are closed. Only its successor can
// answer those. With shared descriptors nothing would be closed before, neither the control socket, by which the holder learns of the death, nor
// the locks that the successor needs: both would wait for ever, and so would the database. With a table of its own only this thread waits.
//
// fn must use system calls (package unix) for these files, since descriptors of package os belong to the runtime's poller, and must close what it opens. It has no
// other descriptor than standard input, output and error.
func WithOwnFiles(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread never ends, and its table is what /proc/self/fd shows. Occupied here, it can't be the next one's.
			defer runtime.UnlockOSThread()
			done <- WithOwnFiles(fn)
			return
		}
		// Never unlocked: the thread ends with the goroutine, and its table with it.
		if err := ownTable(); err != nil {
			done <- fmt.Errorf("a descriptor table for one thread: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// ownTable gives the calling thread a table with nothing but what the runtime itself uses: a collection that starts on this thread polls, and must find the
// poller's descriptors under their numbers.
func ownTable() error {
	keep, err := pollerFDs()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return err
	}
	first := uint(3)
	for _, fd := range keep {
		if fd > first {
			if err := unix.CloseRange(first, fd-1, 0); err != nil {
				return err
			}
		}
		first = max(first, fd+1)
	}
	return unix.CloseRange(first, math.MaxUint32, 0)
}

func pollerFDs() ([]uint, error) {
	const dir = "/proc/thread-self/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var keep []uint
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || (to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]") {
			continue
		}
		if fd, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			keep = append(keep, uint(fd))
		}
	}
	slices.Sort(keep)
	return keep, nil
}
