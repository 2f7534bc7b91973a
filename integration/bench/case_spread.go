package main

import (
	"context"
	"fmt"
	"path/filepath"

	"graphvol/integration/volume"
)

// spread: sealing a file that was rewritten, with a copy spread 4+2 over six directories and without any, in turn. The
// copying itself is waited for before the other's turn; how long it takes is told beside.
func (b *bench) spread(ctx context.Context) error {
	var volumes []*volume.Volume
	for _, name := range []string{"alone", "spread"} {
		v, err := b.volume(name)
		if err != nil {
			return err
		}
		defer b.remove(v)
		if name == "spread" {
			v.Args = append(v.Args, "--erasure", "4+2")
			for i := range 6 {
				v.Args = append(v.Args, "--target", "dir:"+filepath.Join(v.Dir, fmt.Sprintf("copy%d", i)))
			}
		}
		if err := v.Start(ctx); err != nil {
			return err
		}
		volumes = append(volumes, v)
	}
	rates := make([][]float64, len(volumes))
	var copying []float64
	for round := range 2 * b.scale.Rounds {
		for k := range volumes {
			i := (k + round) % len(volumes)
			v := volumes[i]
			if err := randomFile(filepath.Join(v.Mount, pagesName), b.scale.SpreadMiB<<20, b.nextSeed()); err != nil {
				return err
			}
			settle()
			s, err := v.Snapshot(ctx, fmt.Sprintf("s%d", round))
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], float64(s.DirtyBytes)/1e3/s.SealMS)
			if i == 0 {
				continue
			}
			var took float64
			if err := seconds(&took, func() error {
				_, err := v.Run(ctx, "sync", v.Mount, "--wait")
				return err
			}); err != nil {
				return err
			}
			copying = append(copying, took)
		}
	}
	for _, v := range volumes {
		if err := b.noteRSS(ctx, v); err != nil {
			return err
		}
	}
	b.report.add(sampled("spread", "sealing, no copy", "MB/s", rates[0]), sampled("spread", "sealing, a copy spread 4+2", "MB/s", rates[1]),
		sampled("spread", "then, until the copy is complete", "s", copying),
		sampled("spread", "sealing with the copy, compared with none", "×", ratios(rates[1], rates[0])).atLeast(0.8))
	return nil
}
