package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// attrTarget is what attributes are set on.
type attrTarget struct {
	fd       int
	pathOnly bool // opened with O_PATH, because opening it for good could have an effect, or isn't possible
}

// procPath leads to the inode itself, be it a symbolic link, for system calls that don't take O_PATH descriptors.
func (t attrTarget) procPath() string { return fmt.Sprintf("/proc/thread-self/fd/%d", t.fd) }

func (t attrTarget) chown(uid, gid int) error {
	return unix.Fchownat(t.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

func (t attrTarget) chmod(mode uint32) error {
	if t.pathOnly {
		return unix.Chmod(t.procPath(), mode)
	}
	return unix.Fchmod(t.fd, mode)
}

func (t attrTarget) setMtime(m tree.Time) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: m.Sec, Nsec: int64(m.Nsec)}}
	return unix.UtimesNanoAt(t.fd, "", ts, unix.AT_EMPTY_PATH)
}

func (t attrTarget) listxattr() ([]string, error) {
	return listXattrs(func(b []byte) (int, error) {
		if t.pathOnly {
			return unix.Listxattr(t.procPath(), b)
		}
		return unix.Flistxattr(t.fd, b)
	})
}

// getxattr gives a value of up to n bytes.
func (t attrTarget) getxattr(name string, n int) ([]byte, error) {
	b := make([]byte, n+1)
	var err error
	if t.pathOnly {
		n, err = unix.Getxattr(t.procPath(), name, b)
	} else {
		n, err = unix.Fgetxattr(t.fd, name, b)
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

func (t attrTarget) setxattr(name string, val []byte) error {
	if t.pathOnly {
		return unix.Setxattr(t.procPath(), name, val, 0)
	}
	return unix.Fsetxattr(t.fd, name, val, 0)
}

// hasRoom tells whether there is space on the disk for any extended attribute.
func (t attrTarget) hasRoom() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(t.fd, &st) == nil && st.Bavail*uint64(st.Bsize) > 1<<20
}

func (t attrTarget) removexattr(name string) error {
	if t.pathOnly {
		return unix.Removexattr(t.procPath(), name)
	}
	return unix.Fremovexattr(t.fd, name)
}

// chmodAt gives permissions to a directory that can't be opened without them.
func chmodAt(dir int, name string, mode uint32) error {
	fd, err := openAt(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attrTarget{fd, true}.chmod(mode)
}

const setIDs = unix.S_ISUID | unix.S_ISGID

// setAttr sets the attributes that differ, in the order in which one doesn't undo the other: a new owner clears setuid bits and
// file capabilities, ACLs share bits with the mode, and the time is the last.
func (r *restorer) setAttr(t attrTarget, in *tree.Inode, at destName) error {
	var st unix.Stat_t
	if err := unix.Fstat(t.fd, &st); err != nil {
		return err
	}
	mode := in.Mode & 0o7777
	if st.Uid != in.UID || st.Gid != in.GID {
		ok, err := r.setOwner(t, in, at)
		if err != nil {
			return err
		}
		if !ok && !in.IsDir() {
			mode &^= setIDs // rights of the wrong owner are worse than none
		}
	}
	if err := r.setXattrs(t, in.Ino, at); err != nil {
		return err
	}
	if err := unix.Fstat(t.fd, &st); err != nil {
		return err
	}
	if !in.IsSymlink() && st.Mode&0o7777 != mode {
		if err := t.chmod(mode); err != nil {
			return fmt.Errorf("set the mode %o: %w", mode, err)
		}
	}
	if st.Mtim.Sec != in.Mtime.Sec || st.Mtim.Nsec != int64(in.Mtime.Nsec) {
		if err := t.setMtime(in.Mtime); err != nil {
			return fmt.Errorf("set the modification time: %w", err)
		}
	}
	return nil
}

// setOwner gives false if rights are missing for the owner or the group.
func (r *restorer) setOwner(t attrTarget, in *tree.Inode, at destName) (ok bool, err error) {
	err = t.chown(int(in.UID), int(in.GID))
	if err == nil {
		return true, nil
	}
	if r.euid == 0 || !errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("set the owner %d:%d: %w", in.UID, in.GID, err)
	}
	r.warn("the owner", at, err)
	if err := t.chown(-1, int(in.GID)); err != nil && !errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("set the group %d: %w", in.GID, err)
	}
	return false, nil
}

func (r *restorer) setXattrs(t attrTarget, ino uint64, at destName) error {
	have, err := t.listxattr()
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	if err := r.removeXattrs(t, ino, at, have); err != nil {
		return err
	}
	return r.eachXattr(ino, func(x tree.Xattr) error {
		if slices.Contains(have, x.Name) {
			if val, err := t.getxattr(x.Name, len(x.Value)); err == nil && bytes.Equal(val, x.Value) {
				return nil
			}
		}
		err := t.setxattr(x.Name, x.Value)
		if errors.Is(err, unix.ENOSPC) && t.hasRoom() {
			err = unix.E2BIG // ext4 says that there is no space in what an inode has for them
		}
		if err := r.lacking(x.Name, at, err); err != nil {
			return fmt.Errorf("set the extended attribute %s of %d bytes: %w", x.Name, len(x.Value), err)
		}
		return nil
	})
}

// removeXattrs removes what the snapshot doesn't have, before anything is set: there may be room for one of them only.
func (r *restorer) removeXattrs(t attrTarget, ino uint64, at destName, have []string) error {
	extra := slices.DeleteFunc(slices.Clone(have), func(name string) bool { return !ours(name) })
	if len(extra) == 0 {
		return nil
	}
	err := r.eachXattr(ino, func(x tree.Xattr) error {
		extra = slices.DeleteFunc(extra, func(name string) bool { return name == x.Name })
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range extra {
		if err := r.lacking(name, at, t.removexattr(name)); err != nil {
			return fmt.Errorf("remove the extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// eachXattr goes through what the snapshot has. Errors of fn are those of the destination.
func (r *restorer) eachXattr(ino uint64, fn func(tree.Xattr) error) error {
	var failed error
	err := r.from.EachXattr(r.ctx, ino, func(x tree.Xattr) error {
		failed = fn(x)
		return failed
	})
	if failed != nil {
		return failed
	}
	return unreadable(err)
}

// ours tells whether an attribute that the snapshot doesn't have is removed. Others are the machine's: labels, and what a
// filesystem shows of itself.
func ours(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
}

// lacking turns missing rights, or a filesystem without such attributes or room for them, into a warning.
func (r *restorer) lacking(name string, at destName, err error) error {
	switch {
	case err == nil, errors.Is(err, unix.ENODATA):
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.E2BIG):
		r.warn("the extended attribute "+name, at, err)
		return nil
	}
	return err
}
