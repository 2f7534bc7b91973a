package preflight

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/agent/preflight/check"
	"graphvol/internal/mountinfo"
)

// look tells whether a path is as it must be.
func (n need) look() check.Row {
	bad := func(fix, format string, args ...any) check.Row {
		return check.Bad(n.check, n.path, n.what+" "+fmt.Sprintf(format, args...), fix)
	}
	if !filepath.IsAbs(n.path) {
		return bad("", "is no absolute path: write it in full into the configuration")
	}
	path := filepath.Clean(n.path)
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return n.missing(path, bad)
	}
	if err == nil {
		if is := wrongKind(st, n.kind); is != "" {
			return bad("", "%s: correct the path in the configuration", is)
		}
		if n.kind == madeDir && ownerOf(st) != uint32(os.Geteuid()) && os.Geteuid() != 0 {
			return bad("chown "+userName()+" "+check.Quote(path), "belongs to another user, and must belong to %s, as everybody else is kept out of it", userName())
		}
		err = access(path, n.access)
	}
	if err != nil {
		problem, fix := why(path, n.access, err)
		return bad(fix, "%s", problem)
	}
	return check.Good(n.check, n.path)
}

// missing is the row of a path that isn't there. That is as it should be for a directory that will be made, if it can be.
func (n need) missing(path string, bad func(fix, format string, args ...any) check.Row) check.Row {
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return bad("", "is a symbolic link to nothing: make what it leads to, or correct it")
	}
	near := existing(filepath.Dir(path))
	switch {
	case n.kind == file || n.kind == program:
		return bad("", "does not exist: put it there, or correct the path in the configuration")
	case n.kind == dir:
		return bad(makeDir(path), "does not exist: make it, or mount the disk that it is on")
	case n.kind == madeHere && near != filepath.Dir(path):
		return bad(makeDir(filepath.Dir(path)), "can't be made, since there is no directory %s: mount its disk; if it is to be on this one, make it", filepath.Dir(path))
	}
	if st, err := os.Stat(near); err == nil && !st.IsDir() {
		return bad("", "can't be made, since %s is no directory: correct the path in the configuration", near)
	}
	if err := access(near, unix.W_OK|unix.X_OK); err != nil {
		problem, fix := why(near, unix.W_OK|unix.X_OK, err)
		if errors.Is(err, unix.EACCES) {
			fix = makeDir(path) // rather than rights in a directory of others
		}
		return bad(fix, "can't be made: %s %s", near, problem)
	}
	return check.Good(n.check, n.path)
}

// makeDir is a command that makes a directory of this user.
func makeDir(path string) string {
	if os.Geteuid() == 0 {
		return "mkdir -p " + check.Quote(path)
	}
	return fmt.Sprintf("install -d -o %s %s", userName(), check.Quote(path))
}

func wrongKind(st os.FileInfo, k kind) string {
	switch {
	case (k == file || k == program) && st.IsDir():
		return "is a directory, and must be a file"
	case (k == file || k == program) && !st.Mode().IsRegular():
		return "is no regular file"
	case k != file && k != program && !st.IsDir():
		return "is no directory"
	}
	return ""
}

// access asks the kernel what this process, with its effective user and capabilities, may do.
func access(path string, mode uint32) error {
	// Not unix.Faccessat: it takes EPERM, which an immutable file gives, for a kernel that lacks the call, and looks at modes instead.
	return unix.Faccessat2(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}

// why says why access is refused, and what gives it.
func why(path string, mode uint32, err error) (problem, fix string) {
	switch {
	case errors.Is(err, unix.EROFS):
		return readOnly(path)
	case errors.Is(err, unix.ENOTCONN):
		point := mountOf(path).Point
		return "lies on a mount whose server is dead: remove that", "umount -l " + check.Quote(point)
	case errors.Is(err, unix.ENOTDIR):
		return "can't be reached, since something above it is no directory: correct the path in the configuration", ""
	case errors.Is(err, unix.EPERM):
		return "is immutable, and must be written", "chattr -i " + check.Quote(path)
	case errors.Is(err, unix.EACCES):
		return refused(path, mode)
	}
	return fmt.Sprintf("can't be used: %v", err), ""
}

// refused finds what keeps this user from a path: a directory above it, a mount that runs no programs, or its own mode.
func refused(path string, mode uint32) (problem, fix string) {
	var above []string
	for d := filepath.Dir(path); ; d = filepath.Dir(d) {
		above = append(above, d)
		if d == "/" {
			break
		}
	}
	slices.Reverse(above)
	for _, d := range above {
		if errors.Is(access(d, unix.X_OK), unix.EACCES) {
			return fmt.Sprintf("can't be reached by %s, who may not enter %s", userName(), d), allow("x", d)
		}
	}
	st, err := os.Stat(path)
	if err == nil && st.Mode().IsRegular() && mode&unix.X_OK != 0 {
		if m := mountOf(path); slices.Contains(strings.Split(m.Options, ","), "noexec") {
			return "lies on a mount that runs no programs (noexec)", "mount -o remount,bind,exec " + check.Quote(m.Point)
		}
		if st.Mode()&0o111 == 0 {
			return "is not executable", "chmod +x " + check.Quote(path)
		}
	}
	may, letters := lacking(path, mode)
	if err == nil && st.IsDir() && may == "executed" {
		may = "entered"
	}
	return fmt.Sprintf("may not be %s by %s", may, userName()), allow(letters, path)
}

// lacking is what this user may not do, and the letters of all that he must be allowed.
func lacking(path string, mode uint32) (may, letters string) {
	for _, a := range []struct {
		mode   uint32
		may    string
		letter string
	}{{unix.R_OK, "read", "r"}, {unix.W_OK, "written", "w"}, {unix.X_OK, "executed", "x"}} {
		if mode&a.mode == 0 {
			continue
		}
		letters += a.letter
		if may == "" && access(path, a.mode) != nil {
			may = a.may
		}
	}
	return may, letters
}

// allow gives this user rights, and nobody else any.
func allow(letters, path string) string {
	return fmt.Sprintf("setfacl -m u:%s:%s %s", userName(), letters, check.Quote(path))
}

// readOnly says what makes a path writable that is on a read-only mount or filesystem.
func readOnly(path string) (problem, fix string) {
	m := mountOf(path)
	if !slices.Contains(strings.Split(m.SuperOptions, ","), "ro") {
		return "is mounted read-only", "mount -o remount,bind,rw " + check.Quote(m.Point)
	}
	return "lies on a read-only filesystem: if an error of its disk has made it that (dmesg), check it first", "mount -o remount,rw " + check.Quote(m.Point)
}

// mountOf finds the mount that a path lies on, also if that is dead. Without a mount table: the root.
func mountOf(path string) mountinfo.Mount {
	found := mountinfo.Mount{Point: "/"}
	mounts, err := mountinfo.Read()
	if err != nil {
		return found
	}
	var st unix.Statx_t
	known := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st) == nil && st.Mask&unix.STATX_MNT_ID != 0
	for _, m := range mounts {
		below := m.Point == "/" || path == m.Point || strings.HasPrefix(path, m.Point+"/")
		// A later one covers those before it.
		if known && uint64(m.ID) == st.Mnt_id || !known && below {
			found = m
		}
	}
	return found
}

// isVolume tells whether a volume is mounted at a path, without asking it.
func isVolume(path string) bool {
	mounts, err := mountinfo.Read()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(mounts, func(m mountinfo.Mount) bool {
		return m.Point == filepath.Clean(path) && m.FSType == "fuse.graphvol"
	})
}

// userName is this process's user as commands take it.
func userName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
