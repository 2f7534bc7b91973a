package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"graphvol/integration/volume"
)

const pagesName = "data.pages"

// times are the samples of one program.
type times struct {
	full, incremental, stored []float64
}

// snapshots: a file of pages; a full backup; 1% of its pages changed; an incremental backup. Then the same with a file
// four times as large and as many pages changed.
func (b *bench) snapshots(ctx context.Context) error {
	plain := filepath.Join(b.dir, "plain")
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	if err := makePages(filepath.Join(plain, pagesName), b.scale.FileMiB, 1); err != nil {
		return err
	}
	peers := b.peers()
	defer b.removePeers(peers)
	all := map[string]*times{"graphvol": {}}
	runs := []func() error{func() error { return b.ownRound(ctx, "pages", b.scale.FileMiB, all["graphvol"]) }}
	for _, p := range peers {
		all[p.name] = &times{}
		runs = append(runs, func() error { return b.peerRound(ctx, p, plain, all[p.name]) })
	}
	for round := range b.scale.Rounds {
		for i := range runs {
			if err := runs[(i+round)%len(runs)](); err != nil {
				return err
			}
		}
	}
	large := &times{}
	if err := b.ownRound(ctx, "large", b.scale.LargeMiB, large); err != nil {
		return err
	}
	b.snapshotRows(all, large)
	return os.RemoveAll(plain)
}

func (b *bench) changed() int {
	return b.scale.FileMiB * (1 << 20) / pageSize * b.scale.ChangedPct / 100
}

func (b *bench) removePeers(peers []*peer) {
	for _, p := range peers {
		os.RemoveAll(p.repo)
	}
}

// ownRound measures graphvol on a fresh volume whose backing holds the file already.
func (b *bench) ownRound(ctx context.Context, name string, mib int, t *times) error {
	v, err := b.volume(name)
	if err != nil {
		return err
	}
	defer b.remove(v)
	if err := makePages(filepath.Join(v.Backing, pagesName), mib, 1); err != nil {
		return err
	}
	if err := v.Start(ctx); err != nil {
		return err
	}
	seconds, _, err := b.timeSnapshot(ctx, v, "full")
	if err != nil {
		return err
	}
	t.full = append(t.full, seconds)
	for i := range 3 {
		if err := changePages(filepath.Join(v.Mount, pagesName), b.changed(), b.nextSeed()); err != nil {
			return err
		}
		seconds, s, err := b.timeSnapshot(ctx, v, fmt.Sprintf("inc%d", i))
		if err != nil {
			return err
		}
		t.incremental = append(t.incremental, seconds)
		t.stored = append(t.stored, float64(s.StoredBytes)/(1<<20))
	}
	return b.noteRSS(ctx, v)
}

func (b *bench) timeSnapshot(ctx context.Context, v *volume.Volume, name string) (float64, volume.Snapshot, error) {
	settle()
	start := time.Now()
	s, err := v.Snapshot(ctx, name)
	return time.Since(start).Seconds(), s, err
}

func (b *bench) peerRound(ctx context.Context, p *peer, source string, t *times) error {
	if err := p.fresh(ctx); err != nil {
		return err
	}
	seconds, _, err := p.backup(ctx, source, 0)
	if err != nil {
		return err
	}
	t.full = append(t.full, seconds)
	if err := changePages(filepath.Join(source, pagesName), b.changed(), b.nextSeed()); err != nil {
		return err
	}
	seconds, stored, err := p.backup(ctx, source, 1)
	if err != nil {
		return err
	}
	t.incremental = append(t.incremental, seconds)
	t.stored = append(t.stored, float64(stored)/(1<<20))
	return nil
}

func (b *bench) snapshotRows(all map[string]*times, large *times) {
	own, borg, restic := all["graphvol"], all["borg"], all["restic"]
	for _, name := range []string{"graphvol", "borg", "restic"} {
		t := all[name]
		b.report.add(sampled("snapshot", name+": full", "s", t.full),
			sampled("snapshot", fmt.Sprintf("%s: incremental, %d%% of the pages", name, b.scale.ChangedPct), "s", t.incremental),
			sampled("snapshot", name+": stored by the incremental", "MiB", t.stored))
	}
	fastest := min(median(borg.incremental), median(restic.incremental))
	limit := 12.5 * float64(b.scale.FileMiB) / 2048
	b.report.add(
		row{Case: "snapshot", Figure: "stored by graphvol's incremental, most", Unit: "MiB", Value: slices.Max(own.stored)}.atMost(limit),
		row{Case: "snapshot", Figure: "incremental: times as fast as the faster of borg, restic", Unit: "×",
			Value: fastest / median(own.incremental)}.atLeast(12),
		row{Case: "snapshot", Figure: "full: times as fast as the faster of borg, restic", Unit: "×",
			Value: min(median(borg.full), median(restic.full)) / median(own.full)}.atLeast(1),
		sampled("snapshot", fmt.Sprintf("graphvol: incremental, file of %d MiB, as many pages", b.scale.LargeMiB), "s", large.incremental),
		row{Case: "snapshot", Figure: "the same, compared with the small file", Unit: "×",
			Value: median(large.incremental) / median(own.incremental)}.atMost(1.25))
}
