package hold

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// claimWait is how long a mount waits for the processes of an earlier one, which have unmounted and are about to end.
const claimWait = time.Second

// claims are the directories of a volume, locked (flock) so that of several mounts at the same moment one wins. What is locked is the inode:
// other paths to it, symbolic links and bind mounts don't matter, nor does the mount namespace.
//
// A server inherits the backing directory's descriptor and so its lock, which stays while any of the volume's processes lives.
type claims struct{ held []*os.File }

// claim locks the backing directory, which is open, the mount point and the directory of the pid file. ErrInUse if another process has one of
// them, or has just mounted there.
func claim(cfg *Config, backing *os.File) (*claims, error) {
	c := new(claims)
	err := lockDir(backing, "the backing directory "+cfg.Backing)
	for _, d := range [][2]string{{"the mount point ", cfg.Mount}, {"the state directory ", filepath.Dir(cfg.Info)}} {
		if err == nil {
			err = c.add(backing, d[0]+d[1], d[1])
		}
	}
	if err == nil {
		err = checkFree(cfg.Mount)
	}
	if err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// checkFree refuses a mount point that got a volume since it was looked at. Its own directory isn't what was locked then.
func checkFree(point string) error {
	m, ok, err := mountAt(point)
	if err == nil && ok && m.FSType == FSType {
		err = fmt.Errorf("%s is mounted at %s already: %w", m.Source, m.Point, ErrInUse)
	}
	return err
}

// add locks a directory, unless it is the backing directory under another name. One that may not be opened can't be locked: the checks
// of the mount table must do then.
func (c *claims) add(backing *os.File, what, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	f := os.NewFile(uintptr(fd), path)
	c.held = append(c.held, f)
	a, errA := f.Stat()
	b, errB := backing.Stat()
	if err := errors.Join(errA, errB); err != nil || os.SameFile(a, b) {
		return err
	}
	return lockDir(f, what)
}

// lockDir locks a directory, on filesystems that can.
func lockDir(f *os.File, what string) error {
	for end := time.Now().Add(claimWait); ; time.Sleep(claimWait / 50) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is %w, by this path or another: look for it in graphvol status, and unmount it first", what, ErrInUse)
		}
	}
}

func (c *claims) release() {
	for _, f := range c.held {
		f.Close()
	}
}
