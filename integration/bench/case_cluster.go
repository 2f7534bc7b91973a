package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"graphvol/integration/cluster"
	"graphvol/integration/volume"
)

const (
	manyAgents = 8
	fewAgents  = 3
)

// clusters: how long writers are held by snapshots over many agents, and what a snapshot over some costs beside those of the nodes alone. All agents are on this machine, in network namespaces.
func (b *bench) clusters(ctx context.Context) error {
	return errors.Join(b.clusterHolds(ctx), b.clusterSnapshots(ctx))
}

// inCluster runs fn with a cluster of so many agents, and removes all of it.
func (b *bench) inCluster(ctx context.Context, agents int, fn func(*cluster.Cluster) error) (err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("c%d", agents)) // sockets need short paths
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	net, err := cluster.NewNetwork(agents)
	if err != nil {
		return err
	}
	defer net.Close()
	c, err := cluster.New(ctx, cluster.Options{Bin: b.bin, Dir: dir, Net: net, Size: agents, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return fn(c)
}

func volumesOf(c *cluster.Cluster) (all []*volume.Volume) {
	for _, n := range c.Nodes {
		all = append(all, n.Volumes...)
	}
	return all
}

// clusterHolds takes snapshots while clients write to every two nodes.
func (b *bench) clusterHolds(ctx context.Context) error {
	return b.inCluster(ctx, manyAgents, func(c *cluster.Cluster) (err error) {
		if err := c.Start(ctx); err != nil {
			return err
		}
		pairs, err := cluster.StartPairs(volumesOf(c))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pairs.Stop()) }()
		var holds []float64
		for i := range b.scale.Pauses {
			name, mark := fmt.Sprintf("s%d", i), pairs.Mark()
			row, err := c.Nodes[i%manyAgents].Snapshot(ctx, name)
			if err != nil {
				return err
			}
			found := pairs.Check(mark, cluster.InSnapshot(name))
			if err := found.Err(); err != nil {
				return err
			}
			holds = append(holds, row.HoldMS)
		}
		b.report.add(sampled("cluster", fmt.Sprintf("longest hold of a snapshot, %d agents", manyAgents), "ms", holds),
			row{Case: "cluster", Figure: fmt.Sprintf("longest of all, %d agents", manyAgents), Unit: "ms", Value: slices.Max(holds)}.atMost(50))
		return nil
	})
}

// clusterSnapshots compares snapshots of the cluster with those of its nodes, which are taken at the same time without it: the nodes share this machine's processors and its disk.
func (b *bench) clusterSnapshots(ctx context.Context) error {
	return b.inCluster(ctx, fewAgents, func(c *cluster.Cluster) error {
		volumes := volumesOf(c)
		for _, v := range volumes {
			if err := makePages(filepath.Join(v.Backing, pagesName), b.scale.ClusterMiB, b.nextSeed()); err != nil {
				return err
			}
		}
		if err := c.Start(ctx); err != nil {
			return err
		}
		if _, err := c.Nodes[0].Snapshot(ctx, "full"); err != nil {
			return err
		}
		var own, alone, all []float64
		for i := range 2*b.scale.Rounds + 1 {
			for _, run := range []struct {
				samples *[]float64
				changed []*volume.Volume
				take    func() error
			}{
				{&own, volumes, func() error { return together(ctx, volumes, fmt.Sprintf("own%d", i)) }},
				{&all, volumes, func() error { _, err := c.Nodes[i%fewAgents].Snapshot(ctx, fmt.Sprintf("all%d", i)); return err }},
				{&alone, volumes[:1], func() error { return together(ctx, volumes[:1], fmt.Sprintf("alone%d", i)) }},
			} {
				s, err := b.timeChange(run.changed, run.take)
				if err != nil {
					return err
				}
				*run.samples = append(*run.samples, s)
			}
		}
		b.report.add(sampled("cluster", fmt.Sprintf("snapshot of %d%%, %d nodes with %d MiB each", b.scale.ChangedPct, fewAgents, b.scale.ClusterMiB), "s", all),
			sampled("cluster", "the slowest node's own, all at the same time", "s", own), sampled("cluster", "one node's own, the others idle", "s", alone),
			row{Case: "cluster", Figure: "compared with the slowest node's own", Unit: "×", Value: median(ratios(all, own))}.atMost(1.3))
		return nil
	})
}

// timeChange changes pages of all volumes, and tells how long taking a snapshot takes then.
func (b *bench) timeChange(volumes []*volume.Volume, take func() error) (float64, error) {
	count := b.scale.ClusterMiB * (1 << 20) / pageSize * b.scale.ChangedPct / 100
	for _, v := range volumes {
		if err := changePages(filepath.Join(v.Mount, pagesName), count, b.nextSeed()); err != nil {
			return 0, err
		}
	}
	settle()
	start := time.Now()
	err := take()
	return time.Since(start).Seconds(), err
}

// together takes snapshots of volumes at the same time.
func together(ctx context.Context, volumes []*volume.Volume, name string) error {
	errs := make([]error, len(volumes))
	var all sync.WaitGroup
	for i, v := range volumes {
		all.Go(func() { _, errs[i] = v.Snapshot(ctx, name) })
	}
	all.Wait()
	return errors.Join(errs...)
}
