package hold

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"graphvol/internal/mountinfo"
)

// Elsewhere is a mount in another mount namespace than this process's.
type Elsewhere struct {
	PID     int // one of the namespace's processes
	Command string
	Point   string // as that process sees it
}

// elsewhere looks for the filesystem of m, which isn't mounted here any more, in other mount namespaces: as long as one has it, the kernel keeps its connection. It can't see what a container has below
// the root that it was given, nor, unless the caller is root, other users' processes.
func elsewhere(m Mount) (found []Elsewhere) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil
	}
	seen := map[string]bool{own: true}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		ns, err := os.Readlink(filepath.Join("/proc", p.Name(), "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		all, _ := mountinfo.Of(pid) // it may have ended
		for _, o := range all {
			if o.Major == m.Major && o.Minor == m.Minor && o.FSType == FSType {
				comm, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
				found = append(found, Elsewhere{PID: pid, Command: strings.TrimSpace(string(comm)), Point: o.Point})
				break
			}
		}
	}
	return found
}
