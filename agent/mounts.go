package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FSType is what a graphvol mount's type is in /proc/self/mountinfo.
const FSType = "fuse.graphvol"

// Mount is one line of mountinfo that concerns graphvol.
type Mount struct {
	Point    string // where it is mounted
	Type     string
	Source   string // of a graphvol mount: its state directory
	Major    uint32 // of the device; names /sys/class/bdi/MAJ:MIN
	Minor    uint32
	ReadOnly bool
}

// Graphvol reports whether this is a graphvol mount.
func (m Mount) Graphvol() bool { return m.Type == FSType }

// Stale reports whether the mount's server is gone for good: the kernel answers every access with ENOTCONN.
func (m Mount) Stale() bool {
	var st unix.Stat_t
	return errors.Is(unix.Stat(m.Point, &st), unix.ENOTCONN)
}

// Mounts tells the mounts that this process sees, in the order of mounting: of two at one point the later one counts.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return parseMountinfo(f)
}

// GraphvolMounts tells the graphvol mounts that this process sees.
func GraphvolMounts() ([]Mount, error) {
	all, err := Mounts()
	if err != nil {
		return nil, err
	}
	var out []Mount
	for _, m := range all {
		if m.Graphvol() {
			out = append(out, m)
		}
	}
	return out, nil
}

// MountAt tells the topmost mount at exactly this point.
func MountAt(mounts []Mount, point string) (Mount, bool) {
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].Point == point {
			return mounts[i], true
		}
	}
	return Mount{}, false
}

// parseMountinfo reads lines such as
//
//	36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/sda rw,errors=continue
//
// where the fields after the sixth and before "-" are optional (proc_pid_mountinfo(5)).
func parseMountinfo(r io.Reader) ([]Mount, error) {
	var out []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if m, ok := parseMount(sc.Text()); ok {
			out = append(out, m)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return out, nil
}

func parseMount(line string) (Mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return Mount{}, false
	}
	b, a := strings.Fields(before), strings.Fields(after)
	if len(b) < 6 || len(a) < 2 {
		return Mount{}, false
	}
	major, minor, _ := strings.Cut(b[2], ":")
	maj, err1 := strconv.ParseUint(major, 10, 32)
	mnr, err2 := strconv.ParseUint(minor, 10, 32)
	if err1 != nil || err2 != nil {
		return Mount{}, false
	}
	return Mount{
		Point: unescapeMount(b[4]), Type: a[0], Source: unescapeMount(a[1]),
		Major: uint32(maj), Minor: uint32(mnr),
		ReadOnly: b[5] == "ro" || strings.HasPrefix(b[5], "ro,"),
	}, true
}

// unescapeMount undoes the kernel's \ooo for space, tab, newline and backslash.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Canonical makes a path absolute and resolves its symbolic links. The last element may be missing, or be a mount
// whose server is dead; it is then left as it is.
func Canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("make %q absolute: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return real, nil
	}
	if abs == "/" || !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	dir, dirErr := filepath.EvalSymlinks(filepath.Dir(abs))
	if dirErr != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// within reports whether path is dir or lies below it. Both are canonical.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
