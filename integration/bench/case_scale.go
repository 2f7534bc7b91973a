package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"graphvol/integration/volume"
)

const (
	segmentSize = 128 << 10
	gibInTiB    = 1024
)

// grown is what a volume of one size takes.
type grown struct {
	index, rest int64            // bytes of index.db, and of the rest of the state directory without packs and manifests
	peak        map[string]int64 // of the server's memory, by what it did
}

// scaling: how index and memory grow with the volume. Each segment of a file has one page that is like no other, and a hole: as many chunks and
// nodes as a full file of that size has, in a thirty-second of the space.
func (b *bench) scaling(ctx context.Context) error {
	var all []grown
	for _, gib := range b.scale.ScaleGiB {
		g, err := b.grow(ctx, gib)
		if err != nil {
			return err
		}
		all = append(all, g)
		what := fmt.Sprintf("%d GiB: ", gib)
		b.report.add(row{Case: "scale", Figure: what + "index.db", Unit: "MB", Value: float64(g.index) / 1e6},
			row{Case: "scale", Figure: what + "the rest of the state directory, without the store", Unit: "MB", Value: float64(g.rest) / 1e6})
		for _, stage := range scaleStages() {
			b.report.add(row{Case: "scale", Figure: what + "memory, " + stage, Unit: "MB", Value: float64(g.peak[stage]) / 1e6})
		}
	}
	last := len(all) - 1
	perTiB := func(figure string, of func(*grown) int64) {
		added := float64(b.scale.ScaleGiB[last] - b.scale.ScaleGiB[0])
		b.report.add(row{Case: "scale", Figure: "for each further TiB: " + figure, Unit: "MB",
			Value: float64(of(&all[last])-of(&all[0])) / 1e6 * gibInTiB / added})
	}
	perTiB("index.db", func(g *grown) int64 { return g.index })
	perTiB("the rest of the state directory", func(g *grown) int64 { return g.rest })
	for _, stage := range scaleStages() {
		perTiB("memory, "+stage, func(g *grown) int64 { return g.peak[stage] })
	}
	return nil
}

func scaleStages() []string {
	return []string{"first snapshot", "incremental", "reading at random", "verify", "prune"}
}

func (b *bench) grow(ctx context.Context, gib int) (g grown, err error) {
	v, err := b.volume("scale")
	if err != nil {
		return g, err
	}
	defer b.remove(v)
	if err := sparsePages(filepath.Join(v.Backing, pagesName), gib); err != nil {
		return g, err
	}
	if err := v.Start(ctx); err != nil {
		return g, err
	}
	g.peak = make(map[string]int64)
	for i, run := range []func() error{
		func() error { _, err := v.Snapshot(ctx, "first"); return err },
		func() error { return b.oneMore(ctx, v, gib) },
		func() error {
			_, err := readRandom(filepath.Join(v.SnapshotDir("first"), pagesName), b.scale.RandomReads/10)
			return err
		},
		func() error { _, err := v.Run(ctx, "verify", v.Mount); return err },
		func() error {
			if _, err := v.Run(ctx, "delete", v.Mount, "first"); err != nil {
				return err
			}
			_, err := v.Run(ctx, "prune", v.Mount)
			return err
		},
	} {
		if g.peak[scaleStages()[i]], err = peakOf(ctx, v, run); err != nil {
			return g, fmt.Errorf("%d GiB, %s: %w", gib, scaleStages()[i], err)
		}
	}
	info, err := os.Stat(filepath.Join(v.StateDir(), "index.db"))
	if err != nil {
		return g, err
	}
	g.index = info.Size()
	state, err := diskUse(v.StateDir())
	if err != nil {
		return g, err
	}
	store, err := diskUse(filepath.Join(v.StateDir(), "store"))
	g.rest = state - store - g.index
	return g, err
}

// oneMore changes the pages of some segments and takes a snapshot.
func (b *bench) oneMore(ctx context.Context, v *volume.Volume, gib int) error {
	rng := rand.New(rand.NewPCG(b.nextSeed(), 4))
	pages := make([]int, b.changed())
	for i := range pages {
		pages[i] = rng.IntN(gib<<30/segmentSize) * (segmentSize / pageSize)
	}
	if err := rewritePages(filepath.Join(v.Mount, pagesName), pages, b.nextSeed()); err != nil {
		return err
	}
	_, err := v.Snapshot(ctx, "more")
	return err
}

// peakOf is the highest memory use of the volume's server while fn runs, in bytes.
func peakOf(ctx context.Context, v *volume.Volume, fn func() error) (int64, error) {
	st, err := v.Status(ctx)
	if err != nil {
		return 0, err
	}
	// 5 sets VmHWM back to what is used now.
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(st.ServerPID), "clear_refs"), []byte("5\n"), 0); err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	return volume.PeakRSS(st.ServerPID)
}

// sparsePages makes a file with one page in each segment.
func sparsePages(path string, gib int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(gib) << 30); err != nil {
		return err
	}
	page := make([]byte, pageSize)
	for n := range int64(gib) << 30 / segmentSize {
		binary.LittleEndian.PutUint64(page, uint64(n)+1)
		if _, err := f.WriteAt(page, n*segmentSize); err != nil {
			return err
		}
	}
	return f.Sync()
}
