// Command bench measures the figures of docs/benchmarks.md in one run: snapshots beside borg and restic, writers' pauses,
// RocksDB beside the plain disk, and reading back. Runs that are compared alternate (A B A B), so that a change of the
// disk's mood meets both; medians are shown, and ratios are what counts.
//
// It needs root for dropping caches between runs; without root it goes on with warm caches and says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"graphvol/integration/need"
)

// bench is one run of the program.
type bench struct {
	bin, dir string
	scale    scale
	report   *report
	rss      int64  // highest of all servers seen
	seed     uint64 // of the last change of pages
}

// nextSeed makes every change another one, so that no program has seen its pages before.
func (b *bench) nextSeed() uint64 {
	b.seed++
	return b.seed
}

// scale says how large the cases are.
type scale struct {
	Name        string `json:"name"`
	Rounds      int    `json:"rounds"`
	FileMiB     int    `json:"file_mib"`
	LargeMiB    int    `json:"large_file_mib"`
	ChangedPct  int    `json:"changed_percent"`
	ManyFiles   int    `json:"many_files"`
	Pauses      int    `json:"pauses"`
	RocksKeys   int    `json:"rocksdb_keys"`
	RocksReads  int    `json:"rocksdb_reads"`
	RocksSyncs  int    `json:"rocksdb_synced_writes"`
	RandomReads int    `json:"random_reads"`
	// SnapshotS is how often, in seconds, snapshots are taken under RocksDB.
	SnapshotS      int `json:"snapshot_every_s"`
	PruneMiB       int `json:"prune_file_mib"`
	PruneSnapshots int `json:"prune_snapshots"`
}

func full() scale {
	return scale{"full", 3, 2048, 8192, 1, 100_000, 20, 2_000_000, 500_000, 20_000, 100_000, 5, 512, 100}
}

func quick() scale {
	return scale{"quick", 1, 256, 1024, 1, 10_000, 8, 300_000, 100_000, 4_000, 20_000, 1, 64, 20}
}

func main() {
	bin := flag.String("bin", "bin/graphvol", "the graphvol binary")
	dir := flag.String("dir", "", "where to work: the disk to measure; default: a directory beside -out")
	out := flag.String("out", "out/bench", "where results.json and results.md go")
	small := flag.Bool("quick", false, "scale down to a minute or two")
	only := flag.String("only", "", "comma separated cases: snapshot, readback, prune, pause, rocksdb")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *bin, *dir, *out, *small, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, dir, out string, small bool, only string) error {
	if err := need.Programs(ctx, os.Stdout, "fusermount3", "borg", "restic", "db_bench"); err != nil {
		return err
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if dir == "" {
		dir = out
	}
	if dir, err = os.MkdirTemp(dir, "work-"); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{bin: bin, dir: dir, scale: full()}
	if small {
		b.scale = quick()
	}
	if b.report, err = newReport(ctx, bin, dir, b.scale); err != nil {
		return err
	}
	err = b.cases(ctx, only)
	return errors.Join(err, b.report.write(out))
}

func (b *bench) cases(ctx context.Context, only string) error {
	all := []struct {
		name string
		run  func(context.Context) error
	}{{"snapshot", b.snapshots}, {"readback", b.readback}, {"prune", b.prune}, {"pause", b.pauses}, {"rocksdb", b.rocksdb}}
	var errs []error
	for _, c := range all {
		if only != "" && !slices.Contains(strings.Split(only, ","), c.name) {
			continue
		}
		fmt.Println("==", c.name)
		if err := c.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			fmt.Fprintln(os.Stderr, "failed:", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if b.rss > 0 {
		b.report.add(row{Case: "all", Figure: "highest memory of a server (VmHWM)", Unit: "MB", Value: float64(b.rss) / 1e6}.atMost(300))
	}
	return errors.Join(errs...)
}
