package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"graphvol/integration/volume"
)

// Catalogue takes and deletes snapshots of a volume under load, and knows which must be there after a power cut, and what they hold.
type Catalogue struct {
	o     *Oracle
	v     *volume.Volume
	rng   *rand.Rand
	n     int
	snaps map[string]*snap

	// Broken says that the state directory's disk has failed: snapshots may, too.
	Broken atomic.Bool
}

type snap struct {
	state state
	holds Listing // what was on the volume when it was taken; nil if the load was running
}

// state is what is known of a snapshot.
type state int

const (
	asked    state = iota // it may be complete, or dropped
	complete              // reported so: it must be listed
	deleting              // it may be complete, or gone
	deleted               // reported so: it must not be listed
	dropped               // listed as failed
)

func (s state) String() string {
	return [...]string{"asked for", "complete", "being deleted", "deleted", "dropped"}[s]
}

const maxSnapshots = 6

// NewCatalogue makes the catalogue of a volume without snapshots.
func NewCatalogue(o *Oracle, v *volume.Volume, seed uint64) *Catalogue {
	return &Catalogue{o: o, v: v, rng: rand.New(rand.NewPCG(seed, 0)), snaps: map[string]*snap{}}
}

// Run works until the power is cut.
func (c *Catalogue) Run(ctx context.Context) error {
	for !c.o.cut.Load() && !c.Broken.Load() {
		err := c.step(ctx)
		if err != nil && !c.o.cut.Load() && !c.Broken.Load() {
			return err
		}
	}
	return nil
}

func (c *Catalogue) step(ctx context.Context) error {
	whole := c.in(complete)
	switch k := c.rng.IntN(10); {
	case len(whole) >= maxSnapshots || len(whole) > 1 && k < 2:
		return c.delete(ctx, whole[c.rng.IntN(len(whole))])
	case k == 2:
		_, err := c.v.Run(ctx, "prune", c.v.Mount)
		return err
	case k == 3:
		return c.look(ctx)
	case k < 7:
		return c.o.Resting(func() error { return c.take(ctx, true) })
	}
	return c.take(ctx, false)
}

// in lists the snapshots that are in a state.
func (c *Catalogue) in(s state) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.snaps)), func(name string) bool { return c.snaps[name].state != s })
}

// take takes a snapshot; at rest the volume doesn't change meanwhile.
func (c *Catalogue) take(ctx context.Context, atRest bool) error {
	c.n++
	name, s := fmt.Sprintf("s%03d", c.n), &snap{}
	if atRest {
		var err error
		if s.holds, err = List(c.v.Mount); err != nil {
			return err
		}
	}
	c.snaps[name] = s
	if c.rng.IntN(3) == 0 {
		_, err := c.v.Snapshot(ctx, name, "--no-wait")
		return err
	}
	if _, err := c.v.Snapshot(ctx, name); err != nil {
		return err
	}
	if !c.o.cut.Load() {
		s.state = complete
	}
	return nil
}

func (c *Catalogue) delete(ctx context.Context, name string) error {
	c.snaps[name].state = deleting
	if _, err := c.v.Run(ctx, "delete", c.v.Mount, name); err != nil {
		return err
	}
	if !c.o.cut.Load() {
		c.snaps[name].state = deleted
	}
	return nil
}

// look finds out which snapshots have become complete.
func (c *Catalogue) look(ctx context.Context) error {
	list, err := c.v.Snapshots(ctx)
	if err != nil || c.o.cut.Load() {
		return err
	}
	for _, s := range list {
		if known := c.snaps[s.Name]; s.State == "complete" && known != nil && known.state == asked {
			known.state = complete
		}
	}
	return nil
}

// Check compares the volume's list of snapshots with what must and may be there after a power cut, and each with what it must hold.
func (c *Catalogue) Check(ctx context.Context) error {
	list, err := c.v.Snapshots(ctx)
	if err != nil {
		return err
	}
	listed, diffs := map[string]bool{}, []error(nil)
	for _, s := range list {
		known := c.snaps[s.Name]
		switch {
		case known == nil:
			diffs = append(diffs, fmt.Errorf("snapshot %s: nobody has taken it", s.Name))
		case s.State == "failed" && (known.state == asked || known.state == dropped):
			known.state, listed[s.Name] = dropped, true
		case s.State == "complete" && known.state < deleted:
			known.state, listed[s.Name] = complete, true
			diffs = append(diffs, c.compare(s.Name, known.holds))
		default:
			diffs = append(diffs, fmt.Errorf("snapshot %s is listed as %s, and was %s", s.Name, s.State, known.state))
		}
	}
	for name, s := range c.snaps {
		if listed[name] {
			continue
		}
		if s.state == complete || s.state == dropped {
			diffs = append(diffs, fmt.Errorf("snapshot %s was %s, and isn't listed", name, s.state))
		}
		if s.state != deleted {
			delete(c.snaps, name)
		}
	}
	return errors.Join(diffs...)
}

func (c *Catalogue) compare(name string, holds Listing) error {
	got, err := List(c.v.SnapshotDir(name))
	if err == nil && holds != nil {
		err = holds.Compare(got)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	return nil
}

// Next takes a snapshot of a volume at rest, which must equal the volume: that shows that all changes since the one before were known. It returns
// its name and what it holds.
func (c *Catalogue) Next(ctx context.Context) (string, Listing, error) {
	c.n++
	name := fmt.Sprintf("s%03d", c.n)
	live, err := List(c.v.Mount)
	if err != nil {
		return "", nil, err
	}
	if _, err := c.v.Snapshot(ctx, name); err != nil {
		return "", nil, err
	}
	c.snaps[name] = &snap{complete, live}
	return name, live, c.compare(name, live)
}
