package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/integration/volume"
)

// subject is a mounted volume with a database on it, whose state is on a Disk.
type subject struct {
	t     testing.TB
	disk  *Disk
	vol   *volume.Volume
	db    *database
	round int
}

// commandLimit is how long a command may take. What hangs is an error.
const commandLimit = 30 * time.Second

// command runs a command that may fail while there is a fault. If it does, it must say so in one clear line.
func (s *subject) command(args ...string) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandLimit)
	defer cancel()
	_, err := s.vol.Run(ctx, args...)
	s.clear(err)
	return err
}

// clear fails the test if err isn't what a user should see of a failed command.
func (s *subject) clear(err error) {
	s.t.Helper()
	if err == nil {
		return
	}
	var exit *volume.ExitError
	if !errors.As(err, &exit) {
		s.t.Errorf("the command did not end: %v", err)
		return
	}
	text := strings.TrimSpace(exit.Stderr)
	if exit.Code != 1 || text == "" || strings.Contains(text, "\n") {
		s.t.Errorf("graphvol %v: exit code %d, want 1 and one line on standard error, got %q", exit.Args, exit.Code, exit.Stderr)
	}
	for _, bad := range []string{"panic", "goroutine", ".go:", "rpc error", "%!", "internal error"} {
		if strings.Contains(text, bad) {
			s.t.Errorf("graphvol %v: standard error shows %q: %s", exit.Args, bad, text)
		}
	}
}

// work is one round of a database and its administrator: writes, a snapshot with overwrites while it is sealed, names that
// change, another snapshot, a deletion, a prune. Commands may fail, the database's calls must not.
func (s *subject) work() (taken map[string]map[string][]byte) {
	s.t.Helper()
	s.round++
	a, b := fmt.Sprintf("a%d", s.round), fmt.Sprintf("b%d", s.round)
	taken = map[string]map[string][]byte{}
	s.db.overwrite(4)
	s.db.add()
	release := s.disk.Hold(Create, "store/.tmp") // the seal waits until what it has to store was changed
	err := s.command("snapshot", s.vol.Mount, "--name", a, "--no-wait")
	if err == nil {
		taken[a] = s.db.now()
	}
	s.db.overwrite(8)
	s.db.rename()
	release()
	s.settle()
	s.db.overwrite(2)
	s.db.add()
	if s.command("snapshot", s.vol.Mount, "--name", b) == nil {
		taken[b] = s.db.now()
	}
	s.command("delete", s.vol.Mount, fmt.Sprintf("c%d", s.round-1))
	s.command("prune", s.vol.Mount)
	return taken
}

// settle waits until no snapshot is pending.
func (s *subject) settle() {
	s.t.Helper()
	for deadline := time.Now().Add(commandLimit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		all, err := s.vol.Snapshots(s.t.Context())
		if err != nil {
			s.clear(err)
			return
		}
		pending := false
		for _, snap := range all {
			pending = pending || snap.State == "pending"
		}
		if !pending {
			return
		}
	}
	s.t.Errorf("a snapshot stays pending")
}

// check is done when the fault is over: the volume has what the database wrote, the next snapshot equals it, what is complete is whole,
// and nothing is left over.
func (s *subject) check(taken map[string]map[string][]byte) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandLimit)
	defer cancel()
	c := fmt.Sprintf("c%d", s.round)
	if _, err := s.vol.Snapshot(ctx, c); err != nil {
		s.t.Errorf("the snapshot after the fault: %v", err)
		return
	}
	taken[c] = s.db.now()
	if err := compare(s.vol.Backing, taken[c]); err != nil {
		s.t.Errorf("the backing: %v", err)
	}
	all, err := s.vol.Snapshots(ctx)
	if err != nil {
		s.t.Error(err)
	}
	var others []string
	for _, snap := range all {
		want, known := taken[snap.Name]
		if snap.State == "complete" && known {
			if err := compare(s.vol.SnapshotDir(snap.Name), want); err != nil {
				s.t.Errorf("snapshot %s: %v", snap.Name, err)
			}
		}
		if snap.State == "pending" {
			s.t.Errorf("snapshot %s is pending still", snap.Name)
		} else if snap.Name != c {
			others = append(others, snap.ID)
		}
	}
	s.must(ctx, "verify", s.vol.Mount, "--read-data")
	if len(others) > 0 {
		s.must(ctx, append([]string{"delete", s.vol.Mount}, others...)...)
	}
	s.must(ctx, "prune", s.vol.Mount)
	s.strays()
}

func (s *subject) must(ctx context.Context, args ...string) {
	s.t.Helper()
	if out, err := s.vol.Run(ctx, args...); err != nil {
		s.t.Errorf("after the fault: %v: %s", err, out)
	}
}

// strays looks for files that nothing needs any more. One snapshot is left, and one epoch is running.
func (s *subject) strays() {
	s.t.Helper()
	most := map[string]int{"store/.tmp": 0, "preimages": 0, "epochs": 2, "markers": 2, "store/manifests": 1, "fingerprints": 1}
	for dir, n := range most {
		var found []string
		err := filepath.WalkDir(filepath.Join(s.disk.Real, dir), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				found = append(found, filepath.Base(path))
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Error(err)
		}
		if len(found) > n {
			s.t.Errorf("STATE/%s has %d files, want at most %d: %v", dir, len(found), n, found)
		}
	}
}

// descriptors lists what the server has open, but files of the backing and packs, of which it keeps some open.
func (s *subject) descriptors() (pid int, open []string) {
	s.t.Helper()
	st, err := s.vol.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", st.ServerPID)
	list, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		kept := strings.HasPrefix(to, s.vol.Backing) || strings.Contains(to, "/store/packs/") || strings.HasPrefix(to, "/sys/")
		if err == nil && !kept {
			open = append(open, to)
		}
	}
	return st.ServerPID, open
}
