package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"graphvol/integration/volume"
)

// pruneSnapshots is how many snapshots there are before every second of them is deleted.
const pruneSnapshots = 100

// pruned is what one program's pruning took and gave back.
type pruned struct {
	seconds, before, after []float64 // MiB
}

func (p *pruned) add(seconds float64, before, after int64) {
	p.seconds = append(p.seconds, seconds)
	p.before = append(p.before, float64(before)/(1<<20))
	p.after = append(p.after, float64(after)/(1<<20))
}

// prune: 100 snapshots of a file of pages, each after changes of the same hot pages and of some others; every second one is deleted,
// and then the space is given back. Only giving it back is timed: graphvol prune, restic prune, borg compact. The programs get the same pages.
func (b *bench) prune(ctx context.Context) error {
	all := map[string]*pruned{}
	peers := b.peers()
	defer b.removePeers(peers)
	plain := filepath.Join(b.dir, "plain")
	defer os.RemoveAll(plain)
	for round := range b.scale.PruneRounds {
		runs := []func() error{func() error { return b.ownPrune(ctx, round, all) }}
		for _, p := range peers {
			runs = append(runs, func() error { return b.peerPrune(ctx, p, plain, round, all) })
		}
		for i := range runs {
			if err := runs[(i+round)%len(runs)](); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"graphvol", "restic", "borg"} {
		b.report.add(sampled("prune", name+": giving back the space of every second snapshot", "s", all[name].seconds),
			sampled("prune", name+": store before", "MiB", all[name].before),
			sampled("prune", name+": store afterwards", "MiB", all[name].after))
	}
	b.report.add(sampled("prune", "times as fast as restic", "×", ratios(all["restic"].seconds, all["graphvol"].seconds)).atLeast(5))
	return nil
}

// age changes the file as a database does between two snapshots: half of the pages it writes are the same all the time.
func (b *bench) age(path string, round, n int) error {
	total := b.scale.PruneMiB * (1 << 20) / pageSize
	count := total * b.scale.ChangedPct / 100
	return changeHot(path, count/2, count/2, uint64(round*pruneSnapshots+n))
}

func timed(all map[string]*pruned, name, dir string, run func() error) error {
	before, err := diskUse(dir)
	if err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		fmt.Println("  ", err)
	}
	start := time.Now()
	if err := run(); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	after, err := diskUse(dir)
	if all[name] == nil {
		all[name] = &pruned{}
	}
	all[name].add(seconds, before, after)
	return err
}

func (b *bench) ownPrune(ctx context.Context, round int, all map[string]*pruned) error {
	v, err := b.volume("prune")
	if err != nil {
		return err
	}
	defer b.remove(v)
	if err := makePages(filepath.Join(v.Backing, pagesName), b.scale.PruneMiB, 1); err != nil {
		return err
	}
	if err := v.Start(ctx); err != nil {
		return err
	}
	del := []string{"delete", v.Mount}
	for n := range pruneSnapshots {
		if err := b.age(filepath.Join(v.Mount, pagesName), round, n); err != nil {
			return err
		}
		s, err := v.Snapshot(ctx, fmt.Sprintf("s%d", n))
		if err != nil {
			return err
		}
		if n%2 == 0 {
			del = append(del, s.ID)
		}
	}
	if _, err := v.Run(ctx, del...); err != nil {
		return err
	}
	err = timed(all, "graphvol", filepath.Join(v.StateDir(), "store"), func() error {
		_, err := v.Run(ctx, "prune", v.Mount)
		return err
	})
	if err != nil {
		return err
	}
	return b.pruneIsWhole(ctx, v)
}

// pruneIsWhole makes sure that what is left is all there.
func (b *bench) pruneIsWhole(ctx context.Context, v *volume.Volume) error {
	if _, err := v.Run(ctx, "verify", v.Mount, "--read-data"); err != nil {
		return err
	}
	return b.noteRSS(ctx, v)
}

func (b *bench) peerPrune(ctx context.Context, p *peer, plain string, round int, all map[string]*pruned) error {
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	path := filepath.Join(plain, pagesName)
	if err := makePages(path, b.scale.PruneMiB, 1); err != nil {
		return err
	}
	if err := p.fresh(ctx); err != nil {
		return err
	}
	for n := range pruneSnapshots {
		if err := b.age(path, round, n); err != nil {
			return err
		}
		if err := p.run(ctx, p.save(plain, n)); err != nil {
			return err
		}
	}
	forget, err := p.everySecond(ctx)
	if err != nil {
		return err
	}
	if err := p.run(ctx, forget); err != nil {
		return err
	}
	return timed(all, p.name, p.repo, func() error { return p.run(ctx, p.prune) })
}

// everySecond is the command that forgets every second backup, beginning with the first.
func (p *peer) everySecond(ctx context.Context) ([]string, error) {
	if p.name == "borg" {
		args := []string{"borg", "delete", p.repo}
		for n := 0; n < pruneSnapshots; n += 2 {
			args = append(args, fmt.Sprintf("a%d", n))
		}
		return args, nil
	}
	out, err := p.output(ctx, []string{"restic", "snapshots", "--json", "-r", p.repo})
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("restic snapshots --json: %w", err)
	}
	if len(list) != pruneSnapshots {
		return nil, fmt.Errorf("restic has %d snapshots, want %d", len(list), pruneSnapshots)
	}
	args := []string{"restic", "-q", "forget", "-r", p.repo}
	for n := 0; n < len(list); n += 2 {
		args = append(args, list[n].ID)
	}
	return args, nil
}
