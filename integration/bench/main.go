// Command bench measures the figures of docs/benchmarks.md in one run: snapshots and pruning beside borg and restic, writers' pauses,
// RocksDB beside the plain disk, reading back, copies in a bucket and on several disks, what grows with a volume, and snapshots over several agents. Runs that are compared alternate (A B A B), so that a change of the
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
	SnapshotS      int   `json:"snapshot_every_s"`
	PruneMiB       int   `json:"prune_file_mib"`
	PruneSnapshots int   `json:"prune_snapshots"`
	RemoteMiB      int   `json:"remote_file_mib"`
	RestoreMiB     int   `json:"restore_mib"`
	RestoreRounds  int   `json:"restore_rounds"`
	SpreadMiB      int   `json:"spread_file_mib"`
	ScaleGiB       []int `json:"scale_gib"`
	ClusterMiB     int   `json:"cluster_file_mib"`
}

func full() scale {
	return scale{
		Name: "full", Rounds: 3, FileMiB: 2048, LargeMiB: 8192, ChangedPct: 1, ManyFiles: 100_000, Pauses: 20, RocksKeys: 2_000_000, RocksReads: 500_000,
		RocksSyncs: 20_000, RandomReads: 100_000, SnapshotS: 5, PruneMiB: 512, PruneSnapshots: 100, RemoteMiB: 512, RestoreMiB: 1024, RestoreRounds: 5,
		SpreadMiB: 512, ScaleGiB: []int{4, 16, 64}, ClusterMiB: 1024,
	}
}

func quick() scale {
	return scale{
		Name: "quick", Rounds: 1, FileMiB: 256, LargeMiB: 1024, ChangedPct: 1, ManyFiles: 10_000, Pauses: 8, RocksKeys: 300_000, RocksReads: 100_000,
		RocksSyncs: 4_000, RandomReads: 20_000, SnapshotS: 1, PruneMiB: 64, PruneSnapshots: 20, RemoteMiB: 64, RestoreMiB: 128, RestoreRounds: 1,
		SpreadMiB: 64, ScaleGiB: []int{1, 4}, ClusterMiB: 128,
	}
}

func main() {
	bin := flag.String("bin", "bin/graphvol", "the graphvol binary")
	dir := flag.String("dir", "", "where to work: the disk to measure; default: a directory beside -out")
	out := flag.String("out", "out/bench", "where results.json and results.md go")
	small := flag.Bool("quick", false, "scale down to a minute or two")
	only := flag.String("only", "", "comma separated cases: snapshot, readback, prune, remote, restore, spread, scale, pause, rocksdb, cluster")
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
	if err := need.Programs(ctx, os.Stdout, "fusermount3", "ip", "borg", "restic", "db_bench"); err != nil {
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
	}{
		{"snapshot", b.snapshots}, {"readback", b.readback}, {"prune", b.prune}, {"remote", b.remote}, {"restore", b.restore}, {"spread", b.spread}, {"scale", b.scaling},
		{"pause", b.pauses}, {"rocksdb", b.rocksdb}, {"cluster", b.clusters},
	}
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
