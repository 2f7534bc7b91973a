package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// InfoFile is the name that Config.Info usually has, below the state directory.
const InfoFile = "holder.json"

// Info is what a holder leaves in its pid file for commands that look for it.
type Info struct {
	Holder   Process `json:"holder"`
	Server   Process `json:"server"`
	Mount    string  `json:"mount"`
	Backing  string  `json:"backing"`
	Restarts int     `json:"restarts"` // servers started after the first
}

// ReadInfo reads a pid file. os.ErrNotExist: no holder has run, or it ended in an orderly way. That a file is there doesn't mean that
// its processes live: ask Process.Alive.
func ReadInfo(path string) (Info, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Info{}, err
	}
	in, err := decodeInfo(b)
	if err != nil {
		return Info{}, fmt.Errorf("%s: not a holder's pid file: %w", path, err)
	}
	return in, nil
}

func decodeInfo(b []byte) (in Info, err error) {
	if err := json.Unmarshal(b, &in); err != nil {
		return Info{}, err
	}
	return in, nil
}

// Alive reports whether a process lives that has the FUSE descriptor.
func (in Info) Alive() bool { return in.Holder.Alive() || in.Server.Alive() }

// Upgrade asks the holder to start its server's program anew; requests in flight are finished first. It returns at once.
func (in Info) Upgrade() error {
	if err := in.Holder.Signal(syscall.SIGUSR2); err != nil {
		return fmt.Errorf("restart the server of %s: %w", in.Mount, err)
	}
	return nil
}

// write replaces the file in one step, so that readers see a whole one. It isn't synced: after a power cut it means nothing.
func (in Info) write(path string) error {
	b, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// checkInfo refuses to go on if a live process has the state.
func checkInfo(path string) error {
	in, err := ReadInfo(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		// Left by a power cut in the middle of a write, or not ours; the new one replaces it.
		return nil
	}
	if in.Holder.Alive() {
		return fmt.Errorf("%s is mounted at %s by process %d: %w", in.Backing, in.Mount, in.Holder.PID, ErrInUse)
	}
	if in.Server.Alive() {
		return fmt.Errorf("%s is mounted at %s by process %d, whose holder is gone; unmount it first: %w", in.Backing, in.Mount, in.Server.PID, ErrInUse)
	}
	return nil
}
