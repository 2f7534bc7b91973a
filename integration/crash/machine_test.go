package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// loss is what a power cut takes.
type loss int

const (
	together     loss = iota // backing and state are on one disk
	backingFirst             // on two, which both lose their last writes
	stateFirst               // the state's disk fails while the volume is in use, and some time later the other one
	backingOnly              // the state's disk loses nothing
	stateOnly                // the state's disk fails while the volume is in use; then the processes die
	losses
)

func (l loss) String() string {
	return [...]string{"together", "backing-first", "state-first", "backing-only", "state-only"}[l]
}

// machine is a volume on disks whose power can be cut.
type machine struct {
	*volume.Volume
	loss    loss
	rng     *rand.Rand
	backing *rig.Disk
	state   *rig.Disk // the same, or another
}

const diskSize = 400 << 20

func newMachine(t *testing.T, rng *rand.Rand, l loss, fstype string) *machine {
	m := &machine{loss: l, rng: rng, backing: rig.NewDisk(t, fstype, diskSize, "")}
	m.state = m.backing
	if l != together {
		m.state = rig.NewDisk(t, fstype, diskSize, "")
	}
	cache := []string{"writeback", "through"}[rng.IntN(2)]
	after := []string{"0s", "100ms", "1h"}[rng.IntN(3)]
	m.Volume = rig.NewVolume(t, volume.Options{
		Dir: t.TempDir(), Backing: filepath.Join(m.backing.Dir, "backing"), State: filepath.Join(m.state.Dir, "state"), Cache: cache,
		Args: []string{"--settle-after", after},
	})
	// A server without its state's disk has an index there for a moment, in which it may be killed.
	m.Wrap = []string{"env", "TMPDIR=" + t.TempDir()}
	for _, dir := range []string{m.backing.Dir, m.state.Dir} {
		if err := fsyncPath(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s, %s, cache %s, settles after %s", l, fstype, cache, after)
	return m
}

// stateOff lets the state's disk fail if it is to fail before the rest. The volume goes on without.
func (m *machine) stateOff() (failed bool, err error) {
	if m.loss != stateFirst && m.loss != stateOnly {
		return false, nil
	}
	return true, m.state.CutPower()
}

// off ends everything as a power cut does.
func (m *machine) off() error {
	disks := []*rig.Disk{m.backing, m.state}
	switch m.loss {
	case together, backingOnly, stateFirst:
		disks = disks[:1]
	case stateOnly:
		disks = nil
	}
	if m.rng.IntN(4) == 0 {
		if err := m.KillProcesses(); err != nil {
			return err
		}
	}
	for _, d := range disks {
		if err := d.CutPower(); err != nil {
			return err
		}
	}
	return m.KillProcesses()
}

// on mounts the disks again.
func (m *machine) on() error {
	disks := []*rig.Disk{m.backing}
	switch m.loss {
	case backingFirst, stateFirst:
		disks = append(disks, m.state)
	case stateOnly:
		disks[0] = m.state
	}
	for _, d := range disks {
		if err := d.PowerUp(); err != nil {
			return err
		}
	}
	return nil
}

// verify is what a user checks after a power cut.
func (m *machine) verify(ctx context.Context) error {
	if out, err := m.Run(ctx, "verify", m.Volume.Mount, "--read-data"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// restored compares a snapshot, restored to an empty directory, with what it must hold.
func (m *machine) restored(ctx context.Context, name string, holds Listing) error {
	dir, err := os.MkdirTemp("", "restored")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := m.Run(ctx, "restore", m.Volume.Mount, name, dir); err != nil {
		return err
	}
	got, err := List(dir)
	if err == nil {
		err = holds.Compare(got)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s, restored: %w", name, err)
	}
	return nil
}
