package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"graphvol/integration/model"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// target is a directory that can be snapshotted.
type target interface {
	dir() string
	snapshot(ctx context.Context, name string) error // returns as soon as the tree may change again
	ready(ctx context.Context, name string) error    // returns when the snapshot is complete
	snapshotDir(name string) string
	disturb(ctx context.Context) error // something that must go unnoticed by running writers
	restart(ctx context.Context, hard bool) error
	options() model.Options
}

// plain is a directory of the machine's own filesystem: it shows that the model itself is right.
type plain struct{ base string }

func (p plain) dir() string { return filepath.Join(p.base, "live") }
func (p plain) snapshot(ctx context.Context, name string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--sparse=always", p.dir(), p.snapshotDir(name)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp -a: %w: %s", err, out)
	}
	return nil
}
func (p plain) ready(context.Context, string) error { return nil }
func (p plain) snapshotDir(name string) string      { return filepath.Join(p.base, name) }
func (p plain) disturb(context.Context) error       { return nil }
func (p plain) restart(context.Context, bool) error { return nil }
func (p plain) options() model.Options              { return model.Options{StrictHoles: rig.IsExt4(p.base)} }

// mount is a volume mounted by graphvol.
type mount struct {
	*volume.Volume
	strict bool
}

func (m mount) dir() string { return m.Mount }
func (m mount) snapshot(ctx context.Context, name string) error {
	_, err := m.Snapshot(ctx, name, "--no-wait")
	return err
}
func (m mount) ready(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := m.WaitComplete(ctx, name)
	return err
}
func (m mount) snapshotDir(name string) string    { return m.SnapshotDir(name) }
func (m mount) disturb(ctx context.Context) error { return m.KillServer(ctx) }
func (m mount) options() model.Options {
	o := model.Options{StrictHoles: m.strict}
	if m.Cache == "writeback" {
		o.MtimeSlack = 5 * time.Second
	}
	return o
}

// restart mounts again: after a clean unmount, or after server and holder were killed.
func (m mount) restart(ctx context.Context, hard bool) error {
	stop := m.Umount
	if hard {
		stop = m.KillAll
	}
	if err := stop(ctx); err != nil {
		return err
	}
	return m.Start(ctx)
}

func TestModelPlain(t *testing.T) {
	p := plain{t.TempDir()}
	if err := os.Mkdir(p.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	runModel(t, p, 3*time.Second)
}

func TestModelWriteback(t *testing.T) { testModelMount(t, "writeback") }
func TestModelThrough(t *testing.T)   { testModelMount(t, "through") }

func testModelMount(t *testing.T, cache string) {
	v := rig.Mounted(t, volume.Options{Cache: cache})
	runModel(t, mount{v, rig.IsExt4(v.Backing)}, 15*time.Second)
}

// history is how many snapshots are kept for comparison.
const history = 6

type taken struct {
	name string
	tree *model.Tree
}

func runModel(t *testing.T, tgt target, usual time.Duration) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	limit := usual
	if *modelDuration > 0 {
		limit = *modelDuration
	}
	t.Logf("seed %d: go test ./integration -run '^%s$' -model.seed %d", seed, t.Name(), seed)
	const workers = 3
	r, err := model.New(tgt.dir(), seed, workers)
	if err != nil {
		t.Fatal(err)
	}
	defer r.CloseFiles()
	m := &modelRun{Run: r, t: t, tgt: tgt}
	start := time.Now()
	for round := 0; time.Since(start) < limit || round < 4; round++ {
		if err := m.round(t.Context(), round); err != nil {
			t.Fatalf("seed %d, round %d: %v\n%s", seed, round, err, r.History())
		}
	}
	t.Logf("%d rounds, each with a snapshot; %d failed since the server was killed", m.rounds, m.failed)
}

type modelRun struct {
	*model.Run
	t      *testing.T
	tgt    target
	kept   []taken
	rounds int
	failed int // snapshots that were being sealed when the server was killed
}

const opsARound = 150

// round: change, snapshot, change on while it is sealed, compare; now and then with a restart in between.
func (m *modelRun) round(ctx context.Context, n int) error {
	if err := m.change(ctx, n%3 == 1); err != nil {
		return err
	}
	tree, err := m.Observe()
	if err != nil {
		return fmt.Errorf("live tree: %w", err)
	}
	name := fmt.Sprintf("s%d", n)
	if err := m.tgt.snapshot(ctx, name); err != nil {
		return err
	}
	m.kept = append(m.kept, taken{name, tree})
	m.kept = m.kept[max(0, len(m.kept)-history):]
	if n%2 == 0 && exists(m.tgt.snapshotDir(name)) { // a pending snapshot need not be readable; if it is, it must be right
		if err := m.compare(m.kept[len(m.kept)-1], "while it is sealed"); err != nil {
			return err
		}
	}
	disturbed := n%4 == 2
	if err := m.change(ctx, disturbed); err != nil {
		return fmt.Errorf("while %s is sealed: %w", name, err)
	}
	err = m.tgt.ready(ctx, name)
	if disturbed && errors.Is(err, volume.ErrFailed) {
		m.kept = m.kept[:len(m.kept)-1] // the server was killed while it sealed, and its successor says so
		m.failed++
	} else if err != nil {
		return err
	}
	if err := m.compareAll("after more writes"); err != nil {
		return err
	}
	switch n % 4 {
	case 1:
		err = m.restart(ctx, false)
	case 3:
		err = m.restart(ctx, true)
	}
	m.rounds++
	return err
}

// change runs the workers, and disturbs them if asked.
func (m *modelRun) change(ctx context.Context, disturb bool) error {
	if !disturb {
		return m.Round(opsARound)
	}
	m.MayRepeat(true)
	defer m.MayRepeat(false)
	done := make(chan error, 1)
	go func() {
		time.Sleep(time.Duration(m.rounds*7%40) * time.Millisecond) // somewhere in the middle; no matter where
		done <- m.tgt.disturb(ctx)
	}()
	err := m.Round(opsARound)
	if derr := <-done; err == nil {
		err = derr
	}
	if err != nil {
		return fmt.Errorf("with the server killed: %w", err)
	}
	return nil
}

func (m *modelRun) restart(ctx context.Context, hard bool) error {
	what := "after umount and mount"
	if hard {
		what = "after kill -9 of everything and mount"
		if err := m.SyncAll(); err != nil {
			return err
		}
	}
	m.CloseFiles()
	if _, err := m.Observe(); err != nil {
		return fmt.Errorf("live tree before the restart: %w", err)
	}
	if err := m.tgt.restart(ctx, hard); err != nil {
		return err
	}
	o := m.tgt.options()
	if err := m.Compare(o); err != nil {
		return fmt.Errorf("live tree %s: %w", what, err)
	}
	return m.compareAll(what)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (m *modelRun) compareAll(when string) error {
	for _, s := range m.kept {
		if err := m.compare(s, when); err != nil {
			return err
		}
	}
	return nil
}

func (m *modelRun) compare(s taken, when string) error {
	if err := s.tree.Compare(m.tgt.snapshotDir(s.name), m.tgt.options()); err != nil {
		return fmt.Errorf("snapshot %s, %s: %w", s.name, when, err)
	}
	return nil
}
