package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"graphvol/integration/rig"
)

var (
	runs = flag.Int("crash.runs", int(losses), "so many volumes are made, whose power is cut several times each")
	cuts = flag.Int("crash.cuts", 2, "power cuts of each volume")
	seed = flag.Uint64("crash.seed", 0, "seed of the first volume, the next one's is one more; 0 chooses one")
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

func firstSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}

const workers = 3

// TestPlain: the oracle is right about ext4 and xfs themselves.
func TestPlain(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			t.Parallel()
			d := rig.NewDisk(t, fstype, diskSize, "")
			s := firstSeed()
			t.Logf("repeat it with: go test ./integration/crash -run TestPlain -crash.cuts %d -crash.seed %d", *cuts, s)
			dir := d.Dir + "/top"
			if err := errors.Join(os.Mkdir(dir, 0o755), fsyncPath(d.Dir)); err != nil {
				t.Fatal(err)
			}
			o := New()
			l, err := NewLoad(o, dir, s, workers)
			if err != nil {
				t.Fatal(err)
			}
			for range *cuts {
				done := make(chan error, 1)
				go func() { done <- l.Run() }()
				time.Sleep(100 * time.Millisecond)
				o.Cut()
				for _, step := range []func() error{d.CutPower, func() error { return <-done }, d.PowerUp, func() error { return o.Check(dir) }} {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// TestPowerCut: what fsync acknowledged is there after a power cut, complete snapshots are whole, none is half there, and the next
// one holds the volume as it is.
func TestPowerCut(t *testing.T) {
	first := firstSeed()
	for i := range uint64(*runs) {
		s := first + i
		rng := rand.New(rand.NewPCG(s, 0))
		l, fstype := loss(s%uint64(losses)), []string{"ext4", "ext4", "xfs"}[rng.IntN(3)]
		t.Run(fmt.Sprintf("%s-%s", fstype, l), func(t *testing.T) {
			t.Parallel() // they wait for disks mostly
			t.Logf("repeat it with: go test ./integration/crash -run TestPowerCut -crash.runs 1 -crash.cuts %d -crash.seed %d", *cuts, s)
			r := newRun(t, s, rng, l, fstype)
			for n := range *cuts {
				if err := r.round(t.Context()); err != nil {
					t.Fatalf("power cut %d: %v", n, err)
				}
			}
			if err := r.after(t.Context()); err != nil {
				t.Fatalf("after a clean unmount: %v", err)
			}
			t.Logf("%d power cuts survived: %d operations, %d snapshots asked for", *cuts, r.o.Operations(), r.cat.n)
		})
	}
}

// run is one volume that goes through several power cuts.
type run struct {
	*machine
	o    *Oracle
	load *Load
	cat  *Catalogue
}

func newRun(t *testing.T, s uint64, rng *rand.Rand, l loss, fstype string) *run {
	r := &run{machine: newMachine(t, rng, l, fstype), o: New()}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.load, err = NewLoad(r.o, r.Volume.Mount, s, workers); err != nil {
		t.Fatal(err)
	}
	r.cat = NewCatalogue(r.o, r.Volume, s)
	return r
}

// round is one power cut, and all that follows.
func (r *run) round(ctx context.Context) error {
	if err := r.work(ctx, r.moment()); err != nil {
		return fmt.Errorf("before it: %w", err)
	}
	if err := r.on(); err != nil {
		return err
	}
	if err := r.o.Check(r.Backing); err != nil {
		return fmt.Errorf("the backing directory: %w", err)
	}
	if r.rng.IntN(4) == 0 {
		if err := r.cutMounting(ctx); err != nil {
			return fmt.Errorf("and another one while mounting: %w", err)
		}
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	if r.rng.IntN(3) == 0 {
		return nil // the next one comes during the recovery
	}
	return r.check(ctx)
}

// moment is how long the power stays on.
func (r *run) moment() time.Duration {
	if r.rng.IntN(3) == 0 {
		return time.Duration(r.rng.IntN(60)) * time.Millisecond
	}
	return time.Duration(100+r.rng.IntN(500)) * time.Millisecond
}

// work lets the load and the snapshots run until the power is cut.
func (r *run) work(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r.cat.Broken.Store(false)
	done := make(chan error, 2)
	go func() { done <- r.load.Run() }()
	go func() { done <- r.cat.Run(ctx) }()
	time.Sleep(d)
	r.cat.Broken.Store(r.loss == stateFirst || r.loss == stateOnly)
	failed, err := r.stateOff()
	if failed {
		time.Sleep(r.moment() / 4)
	}
	r.o.Cut()
	return errors.Join(err, r.off(), <-done, <-done)
}

// cutMounting cuts the power while the volume is being mounted.
func (r *run) cutMounting(ctx context.Context) error {
	started := make(chan error, 1)
	go func() { started <- r.Start(ctx) }()
	time.Sleep(time.Duration(r.rng.IntN(60)) * time.Millisecond)
	_, err := r.stateOff()
	err = errors.Join(err, r.off())
	<-started // it may fail
	if err := errors.Join(err, r.KillProcesses(), r.on()); err != nil {
		return err
	}
	return r.o.Check(r.Backing)
}

// check is what must be true after a power cut, with nothing else going on.
func (r *run) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	below, err := List(r.Backing)
	if err != nil {
		return err
	}
	live, err := List(r.Volume.Mount)
	if err == nil {
		err = below.Compare(live)
	}
	if err != nil {
		return fmt.Errorf("the mount isn't as the backing directory: %w", err)
	}
	if err := r.cat.Check(ctx); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return err
	}
	name, holds, err := r.cat.Next(ctx)
	if err != nil {
		return fmt.Errorf("the next snapshot: %w", err)
	}
	if r.rng.IntN(3) > 0 {
		return nil
	}
	return r.restored(ctx, name, holds)
}

// after unmounts, mounts, and checks again.
func (r *run) after(ctx context.Context) error {
	if err := r.Umount(ctx); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	return r.check(ctx)
}
