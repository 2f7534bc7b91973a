package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/fs/hold"
)

// candidateWait is how long a program may take to tell its version.
const candidateWait = 10 * time.Second

// Program is what a graphvol says of itself: the JSON of graphvol version.
type Program struct {
	Version string         `json:"version"`
	Go      string         `json:"go"`
	Formats map[string]int `json:"formats"`
}

// candidate is a program that may serve a volume next, held open: what was looked at is what will be started.
type candidate struct {
	Program
	path string
	file *os.File
}

func (c *candidate) close() { c.file.Close() }

// openCandidate looks whether the program at path can take over from this one the volume that is mounted at mount.
func openCandidate(ctx context.Context, path, mount string) (*candidate, error) {
	if !filepath.IsAbs(path) || within(filepath.Clean(path), mount) {
		return nil, refuse(codes.InvalidArgument, fmt.Sprintf("%s must be an absolute path, and not lie in the volume, which can't be read while its server is replaced", path))
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{codes.NotFound, fmt.Sprintf("the program %s can't be opened: %s; nothing was changed", path, err), err}
	}
	c := &candidate{path: path, file: os.NewFile(uintptr(fd), path)}
	err = c.checkPlace(mount)
	if err == nil {
		err = c.ask(ctx)
	}
	if err == nil {
		err = c.checkFormats()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// checkPlace refuses what lies in the volume, whatever its path says.
func (c *candidate) checkPlace(mount string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &st); err != nil {
		return fmt.Errorf("look at the program %s: %w", c.path, err)
	}
	mounts, err := hold.Volumes()
	for _, m := range mounts {
		if m.Point == mount && unix.Major(st.Dev) == m.Major && unix.Minor(st.Dev) == m.Minor {
			return refuse(codes.InvalidArgument, fmt.Sprintf("the program %s lies in the volume, which can't be read while its server is replaced: install it elsewhere", c.path))
		}
	}
	return err
}

// ask runs "PROGRAM version --json".
func (c *candidate) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, candidateWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.file.Fd()), "version", "--json")
	cmd.Dir = "/"
	// It may be anything, also something that starts others.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return refuse(codes.FailedPrecondition, fmt.Sprintf("the program %s did not tell its version within %s (version --json), so it is not started; nothing was changed", c.path, candidateWait))
	case errors.Is(err, os.ErrPermission):
		return refuse(codes.PermissionDenied, fmt.Sprintf("the program %s may not be executed by the volume's user: check its mode (chmod +x); nothing was changed", c.path))
	case err != nil:
		return refuse(codes.FailedPrecondition, fmt.Sprintf("the program %s is no working graphvol (version --json: %s); nothing was changed", c.path, lastWords(err)))
	}
	var ok bool
	if c.Program, ok = decodeProgram(out); !ok {
		return refuse(codes.FailedPrecondition, fmt.Sprintf("the program %s is no graphvol: it does not tell a version (version --json); nothing was changed", c.path))
	}
	return nil
}

// decodeProgram reads what a program says of itself; false if it is no graphvol.
func decodeProgram(out []byte) (p Program, ok bool) {
	err := json.Unmarshal(out, &p)
	return p, err == nil && p.Version != ""
}

// lastWords is an error with the last line that the program has said.
func lastWords(err error) string {
	text := err.Error()
	var exit *exec.ExitError
	var p *os.PathError
	switch {
	case errors.As(err, &exit):
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		if last := lines[len(lines)-1]; last != "" {
			text += ": " + last
		}
	case errors.As(err, &p):
		text = p.Err.Error() // its path is that of a descriptor
	}
	return text
}

// checkFormats refuses a program that couldn't read what this one has written.
func (c *candidate) checkFormats() error {
	var older []string
	for name, have := range Formats() {
		if reads := c.Formats[name]; reads < have {
			older = append(older, fmt.Sprintf("%s %d, the volume has %d", name, reads, have))
		}
	}
	if len(older) == 0 {
		return nil
	}
	slices.Sort(older)
	return refuse(codes.FailedPrecondition, fmt.Sprintf("graphvol %s is too old for this volume: it reads formats up to %s; nothing was changed", c.Version, strings.Join(older, ", ")))
}
