// Package config reads graphvol.yaml: which volumes a machine has, how they are mounted, where their copies are, and how its agent works with
// others. docs/config.md describes it for people.
//
// Only absolute paths are taken, and nothing in them is replaced: what the file says is what is meant. A key that isn't known, or a value that can't be right, is an error that
// names the line; nothing is guessed. What a volume leaves out has the default of the flag of graphvol mount with the same name.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Path is where the file is if nobody says otherwise.
const Path = "/etc/graphvol/graphvol.yaml"

// maxFile is the greatest length of the file, in bytes.
const maxFile = 1 << 20

// File is the whole file.
type File struct {
	Node      Node      `yaml:"node"`
	Etcd      Etcd      `yaml:"etcd"`
	Cluster   Cluster   `yaml:"cluster"`
	Metadata  Metadata  `yaml:"metadata"`
	Preflight Preflight `yaml:"preflight"`
	Volumes   []Volume  `yaml:"volumes"`
}

// Volume is one volume. Pointers and empty strings: the default.
type Volume struct {
	Name        string         `yaml:"name"` // unique on its node; empty: see Label
	Backing     string         `yaml:"backing"`
	Mount       string         `yaml:"mount"`
	State       string         `yaml:"state"`
	Cache       string         `yaml:"cache"`
	SnapDir     string         `yaml:"snapdir"`
	AllowSuid   bool           `yaml:"allow-suid"`
	AllowDev    bool           `yaml:"allow-dev"`
	NoExec      bool           `yaml:"no-exec"`
	Private     bool           `yaml:"private"`
	LogLevel    string         `yaml:"log-level"`
	HangTimeout *time.Duration `yaml:"hang-timeout"`
	Snapshot    Snapshot       `yaml:"snapshot"`
	Copies      []Copy         `yaml:"copies"`
	UploadLimit string         `yaml:"upload-limit"` // bytes a second, as 20MiB/s
	Scrub       Scrub          `yaml:"scrub"`
	Hooks       Hooks          `yaml:"hooks"`
	Schedule    string         `yaml:"schedule"` // of snapshots of this volume alone, cron's five fields; empty: none
	Keep        Keep           `yaml:"keep"`
	Prune       string         `yaml:"prune"` // when the space of deleted snapshots is given back: cron's five fields, or never; empty: once a day, if a policy deletes any
}

// Snapshot is how snapshots are taken.
type Snapshot struct {
	Timeout       time.Duration  `yaml:"timeout"`
	MaxConcurrent int            `yaml:"max-concurrent"`
	SettleAfter   *time.Duration `yaml:"settle-after"`
}

// Copy is where the store is copied to: a whole copy on each target, or with Erasure one that is spread over all.
type Copy struct {
	Targets []string `yaml:"targets"`
	Erasure string   `yaml:"erasure"`
	Encrypt string   `yaml:"encrypt"`
}

// Scrub is how copies are read again and again.
type Scrub struct {
	Every *time.Duration `yaml:"every"`
	Limit string         `yaml:"limit"` // bytes a second
}

// Read reads a file. Its errors are one line that names the file and the line in it.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration can't be read: %w", err)
	}
	defer f.Close()
	p, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("the configuration %s can't be read: %w", path, err)
	}
	if len(p) > maxFile {
		return nil, fmt.Errorf("the configuration %s has more than %d bytes", path, maxFile)
	}
	if len(bytes.TrimSpace(bytes.Trim(p, "\x00"))) == 0 { // what a power cut leaves of a file that was being written, and not what somebody wants
		return nil, fmt.Errorf("the configuration %s is empty: put one there", path)
	}
	c, err := Parse(p)
	if err != nil {
		return nil, fmt.Errorf("the configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads the text of a file.
func Parse(p []byte) (*File, error) {
	var c File
	dec := yaml.NewDecoder(bytes.NewReader(p), yaml.Strict(), yaml.DisallowUnknownField())
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, oneLine(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it must be one YAML document, and something follows that")
	}
	return &c, c.check()
}

// oneLine says what is wrong with a YAML file, and where, without the lines around it.
func oneLine(err error) error {
	var y yaml.Error
	if !errors.As(err, &y) {
		text := strings.Join(strings.Fields(err.Error()), " ")
		if d, ok := strings.CutPrefix(text, "time: "); ok {
			text = d + ": write it as 30s, 5m or 168h"
		}
		return errors.New(text)
	}
	text := strings.Join(strings.Fields(y.GetMessage()), " ")
	if t := y.GetToken(); t != nil && t.Position != nil {
		return fmt.Errorf("line %d: %s", t.Position.Line, text)
	}
	return errors.New(text)
}

// check refuses what can't be right whatever the machine is like.
func (c *File) check() error {
	if err := c.checkNode(); err != nil {
		return err
	}
	names := make(map[string]string)
	used := make(map[string]string)
	for i := range c.Volumes {
		v := &c.Volumes[i]
		if err := v.checkName(names, i); err != nil {
			return err
		}
		if err := v.Hooks.check(); err != nil {
			return fmt.Errorf("volume %d: %w", i+1, err)
		}
		for _, p := range []struct {
			key, path string
			needed    bool
		}{{"backing", v.Backing, true}, {"mount", v.Mount, true}, {"state", v.State, false}} {
			if err := checkPath(p.path, p.needed); err != nil {
				return fmt.Errorf("volume %d: %s %w", i+1, p.key, err)
			}
			if by, ok := used[filepath.Clean(p.path)]; ok && p.path != "" && by != v.name(i) {
				return fmt.Errorf("volume %d: %s %s is used by %s too: each volume needs directories of its own", i+1, p.key, p.path, by)
			}
			used[filepath.Clean(p.path)] = v.name(i)
		}
		for n, copied := range v.Copies {
			if len(copied.Targets) == 0 {
				return fmt.Errorf("volume %d: copy %d has no targets", i+1, n+1)
			}
		}
	}
	return nil
}

// Label is how the volume is called on its node: by its name, or else its mount point.
func (v *Volume) Label() string {
	if v.Name != "" {
		return v.Name
	}
	return filepath.Clean(v.Mount)
}

// checkName refuses names that can't be, and those of another volume.
func (v *Volume) checkName(names map[string]string, i int) error {
	switch by, ok := names[v.Name]; {
	case v.Name == "":
		return nil
	case CheckName(v.Name) != nil:
		return fmt.Errorf("volume %d: %w", i+1, CheckName(v.Name))
	case ok:
		return fmt.Errorf("volume %d: its name %q is that of %s too: give it another", i+1, v.Name, by)
	}
	names[v.Name] = v.name(i)
	return nil
}

func (v *Volume) name(i int) string { return fmt.Sprintf("volume %d (%s)", i+1, v.Backing) }

func checkPath(path string, needed bool) error {
	switch {
	case path == "" && needed:
		return errors.New("is missing")
	case path != "" && !filepath.IsAbs(path):
		return fmt.Errorf("%s: only absolute paths are taken", path)
	case strings.ContainsRune(path, 0):
		return errors.New("has a zero byte")
	}
	return nil
}

// Find gives the volume that is mounted at a path.
func (c *File) Find(mount string) (*Volume, error) {
	var all []string
	for i := range c.Volumes {
		if filepath.Clean(c.Volumes[i].Mount) == filepath.Clean(mount) {
			return &c.Volumes[i], nil
		}
		all = append(all, c.Volumes[i].Mount)
	}
	return nil, fmt.Errorf("the configuration has no volume with the mount point %s: it has %s", mount, strings.Join(all, ", "))
}
