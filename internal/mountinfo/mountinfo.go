// Package mountinfo reads what is mounted.
package mountinfo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Path is the file that is read.
const Path = "/proc/self/mountinfo"

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

// Read lists what is mounted in this process's mount namespace, in the kernel's order: a mount that covers another comes later.
func Read() ([]Mount, error) { return read(Path) }

// Of is Read for another process's mount namespace, as far as that process sees it.
func Of(pid int) ([]Mount, error) { return read(fmt.Sprintf("/proc/%d/mountinfo", pid)) }

func read(path string) ([]Mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m, err := parseLine(sc.Text())
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, sc.Err()
}

// parseLine reads "ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS".
func parseLine(line string) (Mount, error) {
	bad := func(what string) (Mount, error) {
		return Mount{}, fmt.Errorf("%s: %s in %q", Path, what, line)
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
