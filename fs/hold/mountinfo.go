package hold

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// FSType is what mountinfo and df call a mounted volume.
const FSType = "fuse.graphvol"

const mountinfoPath = "/proc/self/mountinfo"

// Mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)), with escape sequences resolved.
type Mount struct {
	ID, Parent   int
	Major, Minor uint32 // st_dev of its files; with FUSE, Minor is the number in /sys/fs/fuse/connections
	Root, Point  string
	Options      string
	FSType       string
	Source       string // for a volume: the backing directory
	SuperOptions string
}

// Mounts lists what is mounted in this process's mount namespace, in the kernel's order: a mount that covers another comes later.
func Mounts() ([]Mount, error) {
	f, err := os.Open(mountinfoPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMountinfo(f)
}

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

func parseMountinfo(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m, err := parseMountLine(sc.Text())
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, sc.Err()
}

// parseMountLine reads "ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS".
func parseMountLine(line string) (Mount, error) {
	bad := func(what string) (Mount, error) {
		return Mount{}, fmt.Errorf("%s: %s in %q", mountinfoPath, what, line)
	}
	left, right, ok := strings.Cut(line, " - ")
	if !ok {
		return bad("no separator")
	}
	l, r := strings.Split(left, " "), strings.Split(right, " ")
	if len(l) < 6 || len(r) < 2 {
		return bad("too few fields")
	}
	major, minor, ok := strings.Cut(l[2], ":")
	id, err1 := strconv.Atoi(l[0])
	parent, err2 := strconv.Atoi(l[1])
	maj, err3 := strconv.ParseUint(major, 10, 32)
	min, err4 := strconv.ParseUint(minor, 10, 32)
	if err := errors.Join(err1, err2, err3, err4); err != nil || !ok {
		return bad("a bad number")
	}
	m := Mount{ID: id, Parent: parent, Major: uint32(maj), Minor: uint32(min),
		Root: unescape(l[3]), Point: unescape(l[4]), Options: l[5], FSType: unescape(r[0]), Source: unescape(r[1])}
	if len(r) > 2 {
		m.SuperOptions = r[2]
	}
	return m, nil
}

// unescape resolves \ooo, the kernel's form of blanks, tabs, line ends and backslashes. Anything else stays as it is.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
