package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"graphvol/internal/durable"
)

const (
	factsName    = "volume.json"
	factsVersion = 1
)

// Facts is STATE/volume.json: what commands must know of a volume to find it, mounted or not. It is for finding only;
// whatever correctness rests on is in the index.
type Facts struct {
	FormatVersion int       `json:"format_version"`
	Backing       string    `json:"backing"` // canonical path
	Mount         string    `json:"mount"`   // where it is mounted, or was last
	Cache         string    `json:"cache"`
	SnapDir       string    `json:"snapdir"`
	Mounted       time.Time `json:"mounted"`
	HolderPID     int       `json:"holder_pid"` // of the last mount
}

// ErrNewerFormat is what reading the state of a later graphvol gives.
var ErrNewerFormat = errors.New("made by a newer graphvol")

// ReadFacts reads STATE/volume.json; os.ErrNotExist if this is no state directory.
func ReadFacts(state string) (Facts, error) {
	b, err := os.ReadFile(filepath.Join(state, factsName))
	if err != nil {
		return Facts{}, fmt.Errorf("read the volume's facts: %w", err)
	}
	return decodeFacts(state, b)
}

func decodeFacts(state string, b []byte) (f Facts, err error) {
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("%s is damaged (%w): the next mount writes it anew", filepath.Join(state, factsName), err)
	}
	if f.FormatVersion > factsVersion {
		return f, fmt.Errorf("the state directory %s is of format %d, this graphvol knows %d: %w; install that version",
			state, f.FormatVersion, factsVersion, ErrNewerFormat)
	}
	return f, nil
}

// WriteFacts replaces STATE/volume.json atomically: after a power cut too, there is the old file or the new one.
func WriteFacts(state string, f Facts) error {
	f.FormatVersion = factsVersion
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write the volume's facts: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(state, factsName), append(b, '\n')); err != nil {
		return fmt.Errorf("write the volume's facts: %w", err)
	}
	return nil
}

func writeSynced(path string, p []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// IsState reports whether the directory is a volume's state directory.
func IsState(dir string) bool {
	for _, name := range []string{factsName, "index.db"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// hasStore reports whether the directory was a volume's state directory, as far as its store tells.
func hasStore(dir string) bool {
	for _, name := range []string{"packs", "manifests"} {
		if st, err := os.Stat(filepath.Join(dir, "store", name)); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// DefaultState is the state directory that belongs to a backing directory if none is given: beside it.
func DefaultState(backing string) string { return backing + ".graphvol" }
