package hold

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is a process that uses a mount.
type User struct {
	PID     int
	Command string   // as in /proc/PID/comm
	How     []string // "cwd", "root", "exe", "map", or the path of an open file
}

func (u User) String() string {
	const most = 2
	how := u.How
	more := ""
	if len(how) > most {
		more = fmt.Sprintf(" and %d more", len(how)-most)
		how = how[:most]
	}
	return fmt.Sprintf("%s (pid %d: %s%s)", u.Command, u.PID, strings.Join(how, ", "), more)
}

// Users finds the processes that have files of a mount open or mapped, or stand in it. It never asks the mount itself, so it works
// when the server hangs or is dead. Processes of other users are missing unless the caller is root.
func Users(m Mount) ([]User, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var users []User
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if how := usesOf(m, pid); len(how) > 0 {
			comm, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
			users = append(users, User{PID: pid, Command: strings.TrimSpace(string(comm)), How: how})
		}
	}
	sort.Slice(users, func(i, j int) bool { return users[i].PID < users[j].PID })
	return users, nil
}

// usesOf lists how one process uses the mount. A process may end while it is looked at; what can't be read counts as unused.
func usesOf(m Mount, pid int) []string {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	var how []string
	for _, link := range []string{"cwd", "root", "exe"} {
		if onMount(m, filepath.Join(proc, link)) {
			how = append(how, link)
		}
	}
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, fd := range fds {
		p := filepath.Join(proc, "fd", fd.Name())
		if onMount(m, p) {
			name, _ := os.Readlink(p)
			how = append(how, name)
		}
	}
	if mapsMount(m, filepath.Join(proc, "maps")) {
		how = append(how, "map")
	}
	return how
}

// onMount follows one of /proc's magic links. AT_STATX_DONT_SYNC keeps the kernel from sending a GETATTR. The mount id tells the mount
// from the files below it (a volume mounted over itself) and from copies of the mount in other namespaces, which don't keep it busy.
func onMount(m Mount, path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err != nil {
		return false
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		return st.Mnt_id == uint64(m.ID)
	}
	return st.Dev_major == m.Major && st.Dev_minor == m.Minor
}

func mapsMount(m Mount, path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	dev := []byte(fmt.Sprintf("%02x:%02x", m.Major, m.Minor))
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if f := bytes.Fields(sc.Bytes()); len(f) >= 4 && bytes.Equal(f[3], dev) {
			return true
		}
	}
	return false
}
