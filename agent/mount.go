package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

// readyFD is the descriptor on which a holder finds the pipe for its Ready.
const readyFD = 3

// stderrName is where a holder's and its servers' standard error goes: it is empty unless one of them crashed.
const (
	stderrName     = "stderr.log"
	stderrMaxBytes = 1 << 20
)

// Ready is what a holder says once: a server serves, or why not.
type Ready struct {
	Server int    `json:"server,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Mounted is what Mount has done.
type Mounted struct {
	MountOptions
	Server int // pid
	Holder int // pid
}

// Problem asks the volume what keeps it from being what it should be; empty: nothing.
func (m Mounted) Problem(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	c, err := connectLive(ctx, Place{State: m.State})
	if c == nil || err != nil {
		return ""
	}
	defer c.Close()
	st, err := c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		return ""
	}
	return st.GetProblem()
}

// Mount mounts a volume and returns when it serves. self is this program: it is run as "self hold OPTIONS", in a
// session of its own, and that runs "self serve OPTIONS". Remarks for people go to notes.
func Mount(ctx context.Context, self string, o MountOptions, notes io.Writer) (Mounted, error) {
	if err := PrepareMount(ctx, &o, notes); err != nil {
		return Mounted{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return Mounted{}, fmt.Errorf("start the holder: %w", err)
	}
	defer r.Close()
	cmd, err := startHolder(self, o, w)
	w.Close()
	if err != nil {
		return Mounted{}, err
	}
	ready, err := awaitReady(ctx, r, o.State)
	if err != nil {
		// The holder unmounts on SIGTERM, if it had come so far.
		cmd.Process.Signal(syscall.SIGTERM)
		return Mounted{}, err
	}
	go cmd.Wait() // where this process outlives it
	return Mounted{o, ready.Server, cmd.Process.Pid}, nil
}

// PrepareMount checks the options, makes them canonical, removes dead mounts and makes the state directory.
func PrepareMount(ctx context.Context, o *MountOptions, notes io.Writer) error {
	o.setDefaults()
	if err := cleanStale(ctx, *o, notes); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := checkNotMounted(*o); err != nil {
		return err
	}
	if err := checkFuse(); err != nil {
		return err
	}
	// A newer state is refused before anything in it is touched. Facts that are damaged are written anew.
	if _, err := ReadFacts(o.State); errors.Is(err, ErrNewerFormat) {
		return err
	}
	return o.makeState()
}

// cleanStale removes the mounts of dead servers that are in the way: at the mount point, and those of the same state.
func cleanStale(ctx context.Context, o MountOptions, notes io.Writer) error {
	points := []string{o.Mount}
	mounts, err := hold.Volumes()
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	state, err := Canonical(o.State)
	for _, m := range mounts {
		if err == nil && m.Source == state && hold.Dead(ctx, m.Point) {
			points = append(points, m.Point)
		}
	}
	for _, point := range points {
		if err := cleanStaleAt(ctx, point, notes); err != nil {
			return err
		}
	}
	return nil
}

// cleanStaleAt removes the mounts of dead servers at a point, and refuses to go on if there is a live one.
func cleanStaleAt(ctx context.Context, point string, notes io.Writer) error {
	n, err := hold.CleanStale(ctx, point, "")
	if n > 0 {
		fmt.Fprintf(notes, "graphvol: removed the mount of a dead server at %s\n", point)
	}
	if errors.Is(err, hold.ErrInUse) {
		return refuse(codes.FailedPrecondition, fmt.Sprintf("a volume is mounted at %s already: unmount it first (graphvol umount %s)", point, point))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// startHolder starts "self hold OPTIONS" detached from this process, its terminal and its directory.
func startHolder(self string, o MountOptions, ready *os.File) (*exec.Cmd, error) {
	out, err := openStderr(o.State)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(self, "hold", o.String())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{ready} // readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the holder: %w", err)
	}
	return cmd, nil
}

func openStderr(state string) (*os.File, error) {
	path := filepath.Join(state, "log", stderrName)
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if st, err := os.Stat(path); err == nil && st.Size() > stderrMaxBytes {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, cannotUseState(state, err)
	}
	return f, nil
}

// awaitReady reads what the holder says, until it has said it or has ended.
func awaitReady(ctx context.Context, r *os.File, state string) (Ready, error) {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	var ready Ready
	err := json.NewDecoder(r).Decode(&ready)
	switch {
	case ctx.Err() != nil:
		return ready, ctx.Err()
	case err != nil:
		return ready, refuse(codes.Internal, "the holder ended without a word: see "+filepath.Join(state, "log", stderrName))
	case ready.Error != "":
		return ready, refuse(codes.FailedPrecondition, ready.Error)
	}
	return ready, nil
}
