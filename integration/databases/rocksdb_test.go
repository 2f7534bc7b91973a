package databases

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const rocksKeys = 200_000

// TestRocksDB fills a store, overwrites it while snapshots are taken, and checks every snapshot with RocksDB's own means:
// all checksums, the consistency of its files, and a whole pass that finds every key.
func TestRocksDB(t *testing.T) {
	needDatabases(t, "db_bench", "ldb")
	onSubjects(t, func(t *testing.T, s subject) {
		db := filepath.Join(s.dir(), "rocks")
		run(t, "db_bench", benchArgs(db, "fillseq", false)...)
		s.snapshot(t, "filled")
		names := []string{"filled"}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		go func() {
			out, err := exec.CommandContext(ctx, "db_bench", benchArgs(db, "overwrite,overwrite,overwrite,overwrite", true)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("overwrite: %w: %s", err, out)
			}
			done <- err
		}()
		if !s.live() {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			done <- nil
		}
		for i := range 3 {
			name := fmt.Sprintf("at-work-%d", i)
			if s.live() {
				written(t, db, done)
			}
			s.snapshot(t, name)
			names = append(names, name)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s.snapshot(t, "done")
		s.restart(t)
		for _, name := range append(names, "done") {
			verifyRocks(t, filepath.Join(restored(t, s, name), "rocks"))
		}
	})
}

// written waits until the database has written some more, or its benchmark has ended.
func written(t *testing.T, db string, done chan error) {
	t.Helper()
	newest := func() string {
		files, _ := filepath.Glob(filepath.Join(db, "*.sst"))
		return strings.Join(files, " ")
	}
	for before, tick := newest(), time.NewTicker(5*time.Millisecond); newest() == before; {
		select {
		case err := <-done:
			done <- err
			return
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func benchArgs(db, benchmarks string, existing bool) []string {
	return []string{
		"--db=" + db, "--benchmarks=" + benchmarks, "--num=" + strconv.Itoa(rocksKeys), "--write_buffer_size=4194304",
		"--use_existing_db=" + strconv.FormatBool(existing), "--compression_type=none", "--seed=1",
	}
}

func verifyRocks(t *testing.T, db string) {
	t.Helper()
	run(t, "ldb", "checkconsistency", "--db="+db)
	run(t, "db_bench", benchArgs(db, "verifychecksum", true)...)
	out := run(t, "ldb", "dump", "--count_only", "--db="+db)
	if !strings.Contains(out, fmt.Sprintf("Keys in range: %d", rocksKeys)) {
		t.Errorf("%s: %s, want %d keys", db, strings.TrimSpace(out), rocksKeys)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
