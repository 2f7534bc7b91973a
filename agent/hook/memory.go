package hook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"graphvol/agent/config"
	"graphvol/internal/durable"
)

const (
	memoryVersion = 1
	memoryPrefix  = "begun-"
	memorySuffix  = ".json"
	runningSuffix = ".pid"
)

// memory is the file that says that post hooks are to be run, and one beside it that names the pre hook that runs.
type memory struct{ path string }

// record is what the file says. The commands are those of the configuration as it was: it may change before they are run.
type record struct {
	Version  int            `json:"version"`
	Volume   string         `json:"volume"`
	Mount    string         `json:"mount"`
	Snapshot string         `json:"snapshot"`
	Begun    time.Time      `json:"begun"`
	Post     []recordedHook `json:"post"`
}

type recordedHook struct {
	Command   []string `json:"command"`
	TimeoutMS int64    `json:"timeout_ms"`
}

func remember(a Around) (*memory, error) {
	r := record{Version: memoryVersion, Volume: a.Volume, Mount: a.Mount, Snapshot: a.Snapshot, Begun: time.Now().UTC()}
	for _, h := range a.Hooks.Post {
		r.Post = append(r.Post, recordedHook{h.Command, h.Timeout.Milliseconds()})
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return nil, err
	}
	m := &memory{filepath.Join(a.Dir, memoryPrefix+rand.Text()+memorySuffix)}
	return m, durable.WriteFile(m.path, raw)
}

// recall reads what was remembered.
func (m *memory) recall() (Around, error) {
	raw, err := os.ReadFile(m.path)
	if err != nil {
		return Around{}, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Around{}, err
	}
	if r.Version != memoryVersion {
		return Around{}, fmt.Errorf("it has version %d, and this program knows version %d", r.Version, memoryVersion)
	}
	a := Around{Volume: r.Volume, Mount: r.Mount, Snapshot: r.Snapshot, Dir: filepath.Dir(m.path)}
	for _, h := range r.Post {
		if len(h.Command) == 0 {
			return Around{}, errors.New("it has a hook without command")
		}
		a.Hooks.Post = append(a.Hooks.Post, config.Hook{Command: h.Command, Timeout: time.Duration(h.TimeoutMS) * time.Millisecond})
	}
	return a, nil
}

// forget is called when the post hooks have been run.
func (m *memory) forget() error {
	if m == nil {
		return nil
	}
	if err := os.Remove(m.path); err != nil {
		return fmt.Errorf("the post hooks will be run again when the agent is started, since that they have been run can't be noted: %w", err)
	}
	return durable.SyncDir(filepath.Dir(m.path))
}

func (m *memory) runningPath() string { return m.path[:len(m.path)-len(memorySuffix)] + runningSuffix }

// begins says, before a pre hook is started, by what its processes can be told. That isn't made durable: a power cut ends them as well.
func (m *memory) begins(word string) error {
	if m == nil {
		return nil
	}
	self, err := inspect(os.Getpid())
	if err != nil {
		return err
	}
	return os.WriteFile(m.runningPath(), fmt.Appendln(nil, word, self.session), 0o600)
}

// runs adds the hook's first process, whose group is the hook's.
func (m *memory) runs(pid int) error {
	if m == nil {
		return nil
	}
	p, err := inspect(pid)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(m.runningPath(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid, p.start)
	return errors.Join(err, f.Close())
}

func (m *memory) ended() {
	if m != nil {
		os.Remove(m.runningPath())
	}
}
