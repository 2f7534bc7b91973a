package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// aging is how a file changes from snapshot to snapshot.
type aging struct {
	name  string
	mib   int
	pages func(total, count int, seed uint64) []int
}

// pruned is what one program's pruning took and gave back; sizes are MiB.
type pruned struct{ seconds, before, after, unused []float64 }

// prune: many snapshots of a file of pages, with one page in a hundred changed before each; every second one is deleted, and then the
// space is given back. Only that is timed: graphvol prune, restic prune, borg compact. All programs get the same pages, once in
// runs and once scattered, which makes restic and borg store nearly all of the file each time.
func (b *bench) prune(ctx context.Context) error {
	for _, a := range []aging{{"runs", b.scale.PruneMiB, inRuns}, {"scattered", b.scale.PruneMiB / 8, scattered}} {
		if err := b.pruneAged(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return nil
}

func (b *bench) pruneAged(ctx context.Context, a aging) error {
	work := filepath.Join(b.dir, "prune")
	defer os.RemoveAll(work)
	subjects := []pruneSubject{b.ownSubject()}
	for i := range peersIn("") {
		subjects = append(subjects, peerSubject(i))
	}
	results := make([]pruned, len(subjects))
	for _, s := range subjects {
		if err := b.buildSubject(ctx, s, a, filepath.Join(work, s.name)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for round := range b.scale.Rounds {
		for i := range subjects {
			i = (i + round) % len(subjects)
			if err := b.pruneOnce(ctx, subjects[i], work, &results[i]); err != nil {
				return fmt.Errorf("%s: %w", subjects[i].name, err)
			}
		}
	}
	kase := "prune"
	own, restic := &results[0], &results[2]
	for i, s := range subjects {
		b.report.add(sampled(kase, fmt.Sprintf("%s, %s: giving back every second of %d snapshots", s.name, a.name, b.scale.PruneSnapshots), "s", results[i].seconds),
			sampled(kase, fmt.Sprintf("%s, %s: stored before", s.name, a.name), "MiB", results[i].before),
			sampled(kase, fmt.Sprintf("%s, %s: stored afterwards", s.name, a.name), "MiB", results[i].after))
	}
	b.report.add(sampled(kase, a.name+": times as fast as restic", "×", ratios(restic.seconds, own.seconds)).atLeast(5),
		sampled(kase, "graphvol, "+a.name+": unused afterwards, of what is stored", "%", own.unused).atMost(5))
	return nil
}

// pruneSubject is a program whose pruning is timed; everything it has is in one directory, so that it can be pruned again in a copy.
type pruneSubject struct {
	name string
	// history makes the snapshots: it calls change with the path of the file before each, and deletes every second one in the end.
	history func(ctx context.Context, dir string, snapshots int, change func(path string, n int) error) error
	// prune gives back the space, and tells how long that took, the bytes stored before and afterwards, and the unused of these.
	prune func(ctx context.Context, dir string) (seconds float64, before, after, unused int64, err error)
}

func (b *bench) buildSubject(ctx context.Context, s pruneSubject, a aging, dir string) error {
	total := a.mib << 20 / pageSize
	return s.history(ctx, dir, b.scale.PruneSnapshots, func(path string, n int) error {
		if n == 0 {
			return makePages(path, a.mib, 1)
		}
		return rewritePages(path, a.pages(total, total*b.scale.ChangedPct/100, uint64(n)), uint64(n))
	})
}

func (b *bench) pruneOnce(ctx context.Context, s pruneSubject, work string, res *pruned) error {
	dir := filepath.Join(work, "copy")
	defer os.RemoveAll(dir)
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(work, s.name), dir).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	seconds, before, after, unused, err := s.prune(ctx, dir)
	if err != nil {
		return err
	}
	res.seconds = append(res.seconds, seconds)
	res.before = append(res.before, float64(before)/(1<<20))
	res.after = append(res.after, float64(after)/(1<<20))
	res.unused = append(res.unused, 100*float64(unused)/float64(after))
	return nil
}

// timed runs fn with empty caches, and tells what is in dir before and afterwards.
func timed(dir string, fn func() error) (seconds float64, before, after int64, err error) {
	if before, err = diskUse(dir); err != nil {
		return 0, 0, 0, err
	}
	if err := dropCaches(); err != nil {
		fmt.Println("  ", err)
	}
	start := time.Now()
	if err := fn(); err != nil {
		return 0, 0, 0, err
	}
	seconds = time.Since(start).Seconds()
	after, err = diskUse(dir)
	return seconds, before, after, err
}

func (b *bench) ownSubject() pruneSubject {
	return pruneSubject{name: "graphvol", history: b.ownHistory, prune: func(ctx context.Context, dir string) (seconds float64, before, after, unused int64, err error) {
		v, err := b.volumeIn(dir)
		if err != nil {
			return 0, 0, 0, 0, err
		}
		defer func() { err = errors.Join(err, v.Close()) }()
		if err := v.Start(ctx); err != nil {
			return 0, 0, 0, 0, err
		}
		var res struct {
			UnusedBytes int64 `json:"unused_bytes"`
		}
		seconds, before, after, err = timed(filepath.Join(v.StateDir(), "store"), func() error {
			out, err := v.Run(ctx, "prune", v.Mount, "--json")
			if err != nil {
				return err
			}
			return json.Unmarshal([]byte(out), &res)
		})
		if err == nil {
			_, err = v.Run(ctx, "verify", v.Mount, "--read-data")
		}
		return seconds, before, after, res.UnusedBytes, errors.Join(err, b.noteRSS(ctx, v))
	}}
}

func (b *bench) ownHistory(ctx context.Context, dir string, snapshots int, change func(string, int) error) (err error) {
	v, err := b.volumeIn(dir)
	if err != nil {
		return err
	}
	if err := v.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	gone := []string{"delete", v.Mount}
	for n := range snapshots {
		if err := change(filepath.Join(v.Mount, pagesName), n); err != nil {
			return err
		}
		s, err := v.Snapshot(ctx, fmt.Sprintf("s%d", n))
		if err != nil {
			return err
		}
		if n%2 == 0 {
			gone = append(gone, s.ID)
		}
	}
	_, err = v.Run(ctx, gone...)
	return err
}
