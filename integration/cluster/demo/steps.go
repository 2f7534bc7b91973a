package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"graphvol/integration/cluster"
	"graphvol/integration/crash"
	"graphvol/integration/volume"
)

const dataFile = "data"

type demo struct {
	*cluster.Cluster
	size  int
	pairs *cluster.Pairs // nil: nobody writes
	lost  *cluster.Node  // the one that is cut off
	sum   *summary
}

func (d *demo) end() error {
	var err error
	if d.pairs != nil {
		err = d.pairs.Stop()
	}
	return errors.Join(err, d.Close())
}

func (d *demo) volumes() (all []*volume.Volume) {
	for _, n := range d.Nodes {
		all = append(all, n.Volumes...)
	}
	return all
}

func (d *demo) start(ctx context.Context) error {
	begun := time.Now()
	if err := d.Start(ctx); err != nil {
		return err
	}
	co, err := d.Coordinator(ctx)
	if err != nil {
		return err
	}
	step(begun, "three agents form a cluster", "%s coordinates", co.Name)
	return nil
}

func (d *demo) fill(context.Context) error {
	begun := time.Now()
	for _, v := range d.volumes() {
		if err := change(v, d.size, d.size); err != nil {
			return err
		}
	}
	step(begun, "data on each node", "%d MiB", d.size>>20)
	return nil
}

// change overwrites so many bytes of the data, beginning anywhere.
func change(v *volume.Volume, size, n int) error {
	f, err := os.OpenFile(filepath.Join(v.Mount, dataFile), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{})
	p := make([]byte, n)
	rng.Read(p)
	if _, err := f.WriteAt(p, rand.Int64N(int64(size-n)+1)); err != nil {
		return err
	}
	return f.Sync()
}

func (d *demo) write(context.Context) (err error) {
	d.pairs, err = cluster.StartPairs(d.volumes())
	return err
}

func (d *demo) first(ctx context.Context) error { return d.take(ctx, d.Nodes[0], "one") }

func (d *demo) second(ctx context.Context) error { return d.take(ctx, d.Nodes[1], "two") }

// take takes a snapshot while clients write, and looks whether it is of one moment.
func (d *demo) take(ctx context.Context, by *cluster.Node, name string) error {
	begun, mark := time.Now(), d.pairs.Mark()
	row, err := by.Snapshot(ctx, name)
	if err != nil {
		return err
	}
	d.sum.Snapshots++
	if row.State == "complete" {
		d.sum.Complete++
	}
	d.sum.MaxHoldMS = max(d.sum.MaxHoldMS, row.HoldMS)
	step(begun, fmt.Sprintf("snapshot %s over all nodes, asked of %s", name, by.Name), "%s: writers held for %.1f ms at most", row.State, row.HoldMS)
	return d.check("the numbers in "+name, mark, cluster.InSnapshot(name))
}

func (d *demo) check(what string, mark []uint64, dir func(*volume.Volume) string) error {
	begun := time.Now()
	found := d.pairs.Check(mark, dir)
	d.sum.Violations += len(found.Ahead)
	if err := found.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	step(begun, what, "none is on the second node that isn't on the first; %d rounds were written so far", d.pairs.Rounds())
	return nil
}

func (d *demo) change(context.Context) error {
	begun := time.Now()
	for _, v := range d.volumes() {
		if err := change(v, d.size, d.size/100); err != nil {
			return err
		}
	}
	step(begun, "1% of the data is changed", "")
	return nil
}

// cut cuts a node off and asks for a snapshot, which can't be.
func (d *demo) cut(ctx context.Context) error {
	begun := time.Now()
	co, err := d.Coordinator(ctx)
	if err != nil {
		return err
	}
	d.lost = d.Nodes[0]
	if d.lost == co {
		d.lost = d.Nodes[1]
	}
	what := "the network of " + d.lost.Name + " is cut"
	if d.Net.CanCut() {
		err = d.lost.Isolate()
	} else {
		what = "the agent of " + d.lost.Name + " is killed"
		d.lost.Kill()
	}
	if err != nil {
		return err
	}
	_, err = co.Snapshot(ctx, "three")
	var exit *volume.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("the snapshot without %s: %w", d.lost.Name, err)
	}
	step(begun, what, "snapshot three fails: %s", strings.TrimSpace(exit.Stderr))
	return nil
}

// heal has the node come back, and shows that nothing is left of what failed.
func (d *demo) heal(ctx context.Context) error {
	begun := time.Now()
	if err := d.Net.Heal(); err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	for _, v := range d.volumes() {
		all, err := v.Snapshots(ctx)
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.Name == "three" && s.State != "failed" {
				return fmt.Errorf("%s has a snapshot three that is %s", v.Mount, s.State)
			}
		}
	}
	step(begun, d.lost.Name+" is back", "nothing is left of three; %d rounds were written so far, the longest write took %v", d.pairs.Rounds(), d.pairs.Longest().Round(time.Millisecond))
	return nil
}

// restore restores two on all nodes, and compares each one's part with the snapshot.
func (d *demo) restore(ctx context.Context) error {
	begun := time.Now()
	to := func(v *volume.Volume) string {
		node, name := filepath.Split(v.Dir)
		return filepath.Join(d.Dir, "restored", filepath.Base(node), name)
	}
	if _, err := d.Nodes[0].Run(ctx, "restore", "two", filepath.Join(d.Dir, "restored")); err != nil {
		return err
	}
	d.sum.Equal = true
	for _, v := range d.volumes() {
		want, err := crash.List(v.SnapshotDir("two"))
		if err != nil {
			return err
		}
		got, err := crash.List(to(v))
		if err != nil {
			return err
		}
		if err := want.Compare(got); err != nil {
			d.sum.Equal = false
			fmt.Printf("%s: %v\n", to(v), err)
		}
	}
	step(begun, "two is restored to directories of all nodes", "equal to the snapshot, by every file's content, owner, mode, times: %v", d.sum.Equal)
	return d.check("the numbers in them", make([]uint64, len(d.pairs.Mark())), to)
}
