package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"graphvol/integration/volume"
)

// rates are operations a second by benchmark, one sample a round.
type rates map[string][]float64

// rocksdb runs db_bench on the plain disk and on a mount, in turn; on the mount, snapshots are taken meanwhile.
func (b *bench) rocksdb(ctx context.Context) error {
	native, mount := rates{}, rates{}
	snapshots := 0
	onPlain := func() error {
		dir := filepath.Join(b.dir, "rocks-native")
		defer os.RemoveAll(dir)
		return b.dbBench(ctx, dir, native)
	}
	onMount := func() error {
		n, err := b.rocksOnMount(ctx, mount)
		snapshots += n
		return err
	}
	for round := range b.scale.Rounds {
		runs := []func() error{onPlain, onMount}
		for i := range runs {
			if err := dropCaches(); err != nil {
				fmt.Println("  ", err)
			}
			if err := runs[(i+round)%2](); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"fillrandom", "overwrite", "readrandom", "readseq", "fillsync"} {
		limit := 0.9
		if name == "fillsync" {
			limit = 0.75
		}
		b.report.add(sampled("rocksdb", name+": native", "op/s", native[name]), sampled("rocksdb", name+": mount", "op/s", mount[name]),
			sampled("rocksdb", name+": mount compared with native", "×", ratios(mount[name], native[name])).atLeast(limit))
	}
	b.report.add(row{Case: "rocksdb", Figure: "snapshots taken meanwhile", Value: float64(snapshots)})
	return nil
}

func (b *bench) rocksOnMount(ctx context.Context, into rates) (int, error) {
	v, err := b.volume("rocks")
	if err != nil {
		return 0, err
	}
	defer b.remove(v)
	if err := v.Start(ctx); err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	taken := make(chan result, 1)
	go func() { taken <- snapshotAgain(ctx, v, time.Duration(b.scale.SnapshotS)*time.Second) }()
	err = b.dbBench(ctx, v.Mount, into)
	stop()
	r := <-taken
	if err == nil {
		err = r.err
	}
	if err == nil {
		err = b.noteRSS(context.WithoutCancel(ctx), v)
	}
	return r.count, err
}

type result struct {
	count int
	err   error
}

// snapshotAgain takes snapshots until the context ends.
func snapshotAgain(ctx context.Context, v *volume.Volume, every time.Duration) (r result) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return r
		case <-tick.C:
		}
		// A snapshot that has begun is waited for, also when the benchmark ends meanwhile.
		if _, err := v.Snapshot(context.WithoutCancel(ctx), fmt.Sprintf("r%d", r.count)); err != nil {
			r.err = err
			return r
		}
		r.count++
	}
}

func (b *bench) dbBench(ctx context.Context, dir string, into rates) error {
	db := filepath.Join(dir, "db")
	if err := os.MkdirAll(db, 0o755); err != nil {
		return err
	}
	common := []string{"--db=" + db, "--compression_type=none", "--seed=1", "--reads=" + strconv.Itoa(b.scale.RocksReads)}
	for _, run := range [][]string{
		{"--benchmarks=fillrandom,overwrite,readrandom,readseq", "--num=" + strconv.Itoa(b.scale.RocksKeys)},
		{"--benchmarks=fillsync", "--num=" + strconv.Itoa(b.scale.RocksSyncs)},
	} {
		settle()
		out, err := exec.CommandContext(ctx, "db_bench", append(run, common...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("db_bench: %w: %s", err, out[max(0, len(out)-2000):])
		}
		if err := parseRates(string(out), into); err != nil {
			return err
		}
	}
	return nil
}

func parseRates(out string, into rates) error {
	line := regexp.MustCompile(`(?m)^(\w+)\s+:\s+[\d.]+ micros/op (\d+) ops/sec`)
	found := line.FindAllStringSubmatch(out, -1)
	if len(found) == 0 {
		return fmt.Errorf("db_bench printed no result: %s", out)
	}
	for _, m := range found {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return err
		}
		into[m[1]] = append(into[m[1]], v)
	}
	return nil
}
