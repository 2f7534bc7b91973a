// Package volume drives a mounted volume through the graphvol binary, the way a user does: for tests, benchmarks and
// the demo. It never unmounts or ends what it did not start.
package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what to mount and where. Only Bin and Dir must be given.
type Options struct {
	Bin     string   // the graphvol binary
	Dir     string   // holds backing, mnt and backing.graphvol unless the fields below say otherwise
	Backing string   // default Dir/backing
	Mount   string   // default Dir/mnt
	State   string   // default: the binary's own choice, beside the backing
	Cache   string   // writeback or through; default: the binary's own choice
	Args    []string // further arguments of graphvol mount
	Wrap    []string // a command to run graphvol mount under, as `sudo -u someone`
}

// Volume is one mounted volume. Its methods may be called from several goroutines, but for Start, Close and the kills.
type Volume struct {
	Options
}

// Snapshot is what `graphvol snapshot --json` prints.
type Snapshot struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`
	Parent      string    `json:"parent"`
	State       string    `json:"state"`
	Created     time.Time `json:"created"`
	PauseMS     float64   `json:"pause_ms"`
	SealMS      float64   `json:"seal_ms"`
	Files       int64     `json:"files"`
	Bytes       int64     `json:"bytes"`
	DirtyBytes  int64     `json:"dirty_bytes"`
	StoredBytes int64     `json:"stored_bytes"`
	Checksum    string    `json:"checksum_sha256"`
}

// Status is a row of `graphvol status --json`.
type Status struct {
	Mount      string `json:"mount"`
	Backing    string `json:"backing"`
	State      string `json:"state"`
	ServerPID  int    `json:"server_pid"`
	HolderPID  int    `json:"holder_pid"`
	Epoch      int64  `json:"epoch"`
	DirtyBytes int64  `json:"dirty_bytes"`
	StoreBytes int64  `json:"store_bytes"`
	Version    string `json:"version"`
	Server     Server `json:"server"`
}

// Server is what the volume's server uses.
type Server struct {
	Goroutines    int64 `json:"goroutines"`
	OpenFiles     int64 `json:"open_files"`
	ResidentBytes int64 `json:"resident_bytes"`
	HeapBytes     int64 `json:"heap_bytes"`
}

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Args   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("graphvol %s: exit code %d: %s", strings.Join(e.Args, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// ErrFailed says that a snapshot was taken but could not be stored, and that the volume says so.
var ErrFailed = errors.New("snapshot failed")

// New fills in the defaults and makes the directories. Nothing is mounted yet.
func New(o Options) (*Volume, error) {
	if o.Backing == "" {
		o.Backing = filepath.Join(o.Dir, "backing")
	}
	if o.Mount == "" {
		o.Mount = filepath.Join(o.Dir, "mnt")
	}
	for _, dir := range []string{o.Backing, o.Mount} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return &Volume{o}, nil
}

// Start mounts the volume and returns when it serves.
func (v *Volume) Start(ctx context.Context) error {
	args := []string{"mount", v.Backing, v.Mount}
	if v.State != "" {
		args = append(args, "--state", v.State)
	}
	if v.Cache != "" {
		args = append(args, "--cache", v.Cache)
	}
	if _, err := v.run(ctx, v.Wrap, append(args, v.Args...)...); err != nil {
		return err
	}
	if !Mounted(v.Mount) {
		return fmt.Errorf("graphvol mount %s %s returned, but nothing is mounted there", v.Backing, v.Mount)
	}
	return nil
}

// Umount unmounts as a user does.
func (v *Volume) Umount(ctx context.Context) error {
	if _, err := v.Run(ctx, "umount", v.Mount); err != nil {
		return err
	}
	if Mounted(v.Mount) {
		return fmt.Errorf("graphvol umount %s returned, but it is still mounted", v.Mount)
	}
	return nil
}

// Close unmounts by all means, and ends the volume's processes if they don't end by themselves.
func (v *Volume) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pids := v.Processes()
	var err error
	if Mounted(v.Mount) {
		if err = v.Umount(ctx); err != nil {
			detach(v.Mount)
		}
	}
	for _, pid := range pids {
		if !waitGone(pid, 5*time.Second) {
			unix.Kill(pid, unix.SIGKILL)
			err = errors.Join(err, fmt.Errorf("process %d outlived the unmount", pid))
		}
	}
	return err
}

// Detach takes away a mount whose processes have been killed. Files that are open stay so, and can't be used.
func (v *Volume) Detach() error {
	if !Mounted(v.Mount) {
		return nil
	}
	detach(v.Mount)
	if Mounted(v.Mount) {
		return fmt.Errorf("%s can't be unmounted", v.Mount)
	}
	return nil
}

func detach(mount string) {
	if os.Geteuid() == 0 {
		unix.Unmount(mount, unix.MNT_DETACH)
		return
	}
	exec.Command("fusermount3", "-u", "-z", mount).Run()
}

// Run runs a graphvol command and returns its standard output. The error of a failed command is an *ExitError.
func (v *Volume) Run(ctx context.Context, args ...string) (string, error) {
	return v.run(ctx, nil, args...)
}

func (v *Volume) run(ctx context.Context, wrap []string, args ...string) (string, error) {
	line := append(append([]string{}, wrap...), append([]string{v.Bin}, args...)...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	// A file, not a pipe: a server that keeps standard error open must not keep the caller waiting.
	stderr, err := os.CreateTemp("", "graphvol-stderr")
	if err != nil {
		return "", err
	}
	defer os.Remove(stderr.Name())
	defer stderr.Close()
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(stderr.Name())
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return stdout.String(), &ExitError{Args: args, Code: exit.ExitCode(), Stderr: string(text)}
		}
		return stdout.String(), fmt.Errorf("graphvol %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return stdout.String(), nil
}

// Snapshot takes a snapshot and waits for it to be complete, unless args say --no-wait.
func (v *Volume) Snapshot(ctx context.Context, name string, args ...string) (Snapshot, error) {
	var s Snapshot
	out, err := v.Run(ctx, append([]string{"snapshot", v.Mount, "--name", name, "--json"}, args...)...)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("graphvol snapshot --json: %w in %q", err, out)
	}
	return s, nil
}

// Snapshots lists the volume's snapshots, oldest first.
func (v *Volume) Snapshots(ctx context.Context) ([]Snapshot, error) {
	out, err := v.Run(ctx, "snapshots", v.Mount, "--json")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Snapshots []Snapshot `json:"snapshots"`
	}
	if strings.HasPrefix(strings.TrimSpace(out), "[") {
		err = json.Unmarshal([]byte(out), &doc.Snapshots)
	} else {
		err = json.Unmarshal([]byte(out), &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("graphvol snapshots --json: %w in %q", err, out)
	}
	return doc.Snapshots, nil
}

// WaitComplete waits until the snapshot is complete. The error is ErrFailed if the volume lists it as failed.
func (v *Volume) WaitComplete(ctx context.Context, name string) (Snapshot, error) {
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		all, err := v.Snapshots(ctx)
		if err != nil {
			return Snapshot{}, err
		}
		s, ok := find(all, name)
		switch {
		case !ok:
			return s, fmt.Errorf("snapshot %s is not listed", name)
		case s.State == "complete":
			return s, nil
		case s.State == "failed":
			return s, fmt.Errorf("%w: %s", ErrFailed, name)
		case s.State != "pending":
			return s, fmt.Errorf("snapshot %s is %s", name, s.State)
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("snapshot %s is still pending: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

func find(all []Snapshot, name string) (Snapshot, bool) {
	for _, s := range all {
		if s.Name == name {
			return s, true
		}
	}
	return Snapshot{}, false
}

// SnapshotDir is where a snapshot can be read.
func (v *Volume) SnapshotDir(name string) string { return filepath.Join(v.Mount, ".snapshots", name) }

// StateDir is the volume's state directory.
func (v *Volume) StateDir() string {
	if v.State != "" {
		return v.State
	}
	return v.Backing + ".graphvol"
}

// Status asks for the volume's state.
func (v *Volume) Status(ctx context.Context) (Status, error) {
	out, err := v.Run(ctx, "status", v.Mount, "--json")
	if err != nil {
		return Status{}, err
	}
	var doc struct {
		Volumes []Status `json:"volumes"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		return Status{}, fmt.Errorf("graphvol status --json: %w in %q", err, out)
	}
	if len(doc.Volumes) != 1 {
		return Status{}, fmt.Errorf("graphvol status %s: %d volumes, want 1", v.Mount, len(doc.Volumes))
	}
	return doc.Volumes[0], nil
}
