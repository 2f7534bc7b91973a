package volume

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/mountinfo"
)

// Build builds the binary into dir and returns its path. Arguments go to go build.
func Build(ctx context.Context, dir string, args ...string) (string, error) {
	bin := filepath.Join(dir, "graphvol")
	return bin, BuildPackage(ctx, bin, "graphvol/cmd/graphvol", args...)
}

// BuildPackage builds a command with the go command's arguments.
func BuildPackage(ctx context.Context, bin, pkg string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", bin}, args...), pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// KillServer ends the serving process with SIGKILL; the holder is expected to start a new one.
func (v *Volume) KillServer(ctx context.Context) error {
	st, err := v.Status(ctx)
	if err != nil {
		return err
	}
	if st.ServerPID <= 1 {
		return fmt.Errorf("status says that the server's pid is %d", st.ServerPID)
	}
	return unix.Kill(st.ServerPID, unix.SIGKILL)
}

// KillAll ends server and holder with SIGKILL, as nothing but a broken machine does, and leaves the dead mount.
func (v *Volume) KillAll(ctx context.Context) error {
	st, err := v.Status(ctx)
	if err != nil {
		return err
	}
	for _, pid := range []int{st.HolderPID, st.ServerPID} {
		if pid > 1 {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
	}
	for _, pid := range []int{st.HolderPID, st.ServerPID} {
		if pid > 1 && !waitGone(pid, 10*time.Second) {
			return fmt.Errorf("process %d is still there after kill -9", pid)
		}
	}
	return nil
}

// KillProcesses ends server and holder with SIGKILL where they can't be asked for their numbers any more.
func (v *Volume) KillProcesses() error {
	deadline := time.Now().Add(20 * time.Second)
	// The holder may start another server before it ends.
	for pids := v.Processes(); len(pids) > 0; pids = v.Processes() {
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		for _, pid := range pids {
			if !waitGone(pid, time.Until(deadline)) {
				return fmt.Errorf("process %d is still there after kill -9", pid)
			}
		}
	}
	return nil
}

// Processes are the volume's processes: those with the binary's path and one of the volume's directories in their command line.
func (v *Volume) Processes() []int {
	var pids []int
	for _, pid := range Processes(v.Bin) {
		line := commandLine(pid)
		if strings.Contains(line, v.Mount) || strings.Contains(line, v.Backing) || strings.Contains(line, v.StateDir()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Processes lists all processes that run the binary.
func Processes(bin string) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		exe, err := os.Readlink(dir + "/exe")
		if err == nil && strings.TrimSuffix(exe, " (deleted)") == bin {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func commandLine(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(raw), "\x00", " ")
}

// waitGone waits for the end of a process that is not necessarily a child. A zombie has ended.
func waitGone(pid int, limit time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(limit)
	for {
		ms := int(time.Until(deadline).Milliseconds())
		if ms < 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if err == nil && n > 0 {
			return true
		}
	}
}

// PeakRSS is the most memory that a process has used, in bytes.
func PeakRSS(pid int) (int64, error) { return memory(pid, "VmHWM:") }

// RSS is the memory that a process uses, in bytes.
func RSS(pid int) (int64, error) { return memory(pid, "VmRSS:") }

func memory(pid int, field string) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no %s", pid, field)
}

// Mounted reports whether something is mounted at dir.
func Mounted(dir string) bool {
	return slices.Contains(Mounts(), dir)
}

// Mounts lists the mount points of all mounts whose type, source or place names graphvol, and of any mount below a temporary directory.
func Mounts() (points []string) {
	all, err := mountinfo.Read()
	if err != nil {
		panic(fmt.Sprintf("what is mounted can't be read: %v", err)) // nothing that a test says could be believed
	}
	for _, m := range all {
		if strings.Contains(m.FSType+" "+m.Source+" "+m.Point, "graphvol") || strings.HasPrefix(m.Point, os.TempDir()+"/") {
			points = append(points, m.Point)
		}
	}
	return points
}
