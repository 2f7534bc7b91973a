package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"graphvol/integration/databases/graphdb"
	"graphvol/integration/volume"
)

type demo struct {
	*volume.Volume
	out   io.Writer
	nodes int
	graph *graphdb.Graph

	one, two volume.Snapshot
	facts    map[string]graphdb.Facts // by snapshot
	commits  uint64                   // that had returned when snapshot "three" was asked for
	stall    time.Duration
	kills    int
}

func (d *demo) mount(ctx context.Context) error {
	start := time.Now()
	if err := d.Start(ctx); err != nil {
		return err
	}
	d.step(start, "mount", "%s", d.Mount)
	return nil
}

func (d *demo) load(ctx context.Context) error {
	start := time.Now()
	var err error
	if d.graph, err = graphdb.Open(d.Mount, true); err != nil {
		return err
	}
	const edges = 3
	if err := d.graph.Load(ctx, d.nodes, edges, 1); err != nil {
		return err
	}
	d.step(start, "load a property graph into Badger on the mount", "%d nodes, %d edges each", d.nodes, edges)
	d.facts = map[string]graphdb.Facts{}
	return nil
}

func (d *demo) first(ctx context.Context) (err error) {
	d.one, err = d.take(ctx, "one")
	return err
}

func (d *demo) change(ctx context.Context) error {
	start := time.Now()
	if err := d.graph.Change(ctx, d.nodes, d.nodes/100, 2); err != nil {
		return err
	}
	d.step(start, "change 1% of the nodes", "%d nodes", d.nodes/100)
	return nil
}

func (d *demo) second(ctx context.Context) (err error) {
	d.two, err = d.take(ctx, "two")
	return err
}

// take records what the graph holds, and snapshots it while the database is open.
func (d *demo) take(ctx context.Context, name string) (volume.Snapshot, error) {
	facts, err := d.graph.Check(ctx)
	if err != nil {
		return volume.Snapshot{}, err
	}
	d.facts[name] = facts
	start := time.Now()
	s, err := d.Snapshot(ctx, name)
	if err != nil {
		return s, err
	}
	d.step(start, "snapshot "+name, "%s: writers paused %.3f ms; %s of %s dirty, %s stored", s.Kind, s.PauseMS,
		size(s.DirtyBytes), size(s.Bytes), size(s.StoredBytes))
	return s, nil
}

// kill ends the server with SIGKILL while a writer commits; the writer must see nothing but a short stall.
func (d *demo) kill(ctx context.Context) error {
	start := time.Now()
	var returned atomic.Uint64
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- d.writer(ctx, &returned) }()
	for d.kills < 3 {
		before := returned.Load()
		if err := d.KillServer(ctx); err != nil {
			return err
		}
		d.kills++
		if err := waitFor(ctx, done, func() bool { return returned.Load() > before+50 }); err != nil {
			return fmt.Errorf("after kill -9 of the server: %w", err)
		}
	}
	d.commits = returned.Load()
	if _, err := d.Snapshot(ctx, "three"); err != nil {
		return err
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	d.step(start, fmt.Sprintf("kill -9 of the server %d times while the graph is written", d.kills),
		"%d synced commits, no error, longest stall %s; snapshot three amid them", returned.Load(), round(d.stall))
	return nil
}

func (d *demo) writer(ctx context.Context, returned *atomic.Uint64) error {
	for ctx.Err() == nil {
		n, start := returned.Load()+1, time.Now()
		if err := d.graph.Commit(n, d.nodes); err != nil {
			return fmt.Errorf("the writer noticed: %w", err)
		}
		d.stall = max(d.stall, time.Since(start))
		returned.Store(n)
	}
	return nil
}

func waitFor(ctx context.Context, done <-chan error, ok func() bool) error {
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for tick := time.NewTicker(time.Millisecond); !ok(); {
		select {
		case err := <-done:
			return errors.Join(errors.New("the writer ended"), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return errors.New("the writer made no progress for 30 s")
		case <-tick.C:
		}
	}
	return nil
}

// browse walks two snapshots as directories, and lets diff say what is between them.
func (d *demo) browse(ctx context.Context) error {
	for _, name := range []string{"one", "two"} {
		start := time.Now()
		files, total := 0, int64(0)
		err := filepath.WalkDir(d.SnapshotDir(name), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				files, total = files+1, total+info.Size()
			}
			return err
		})
		if err != nil {
			return err
		}
		d.step(start, "browse .snapshots/"+name, "%d files, %s", files, size(total))
	}
	start := time.Now()
	out, err := d.Run(ctx, "diff", d.Mount, "one", "two")
	if err != nil {
		return err
	}
	d.step(start, "diff one two", "%d lines, without reading data", strings.Count(out, "\n"))
	return nil
}

// compare copies each snapshot out with cp, opens it, and compares the graph with what it was.
func (d *demo) compare(ctx context.Context) error {
	for _, name := range []string{"one", "two", "three"} {
		start := time.Now()
		dst := filepath.Join(d.Dir, "restored-"+name)
		if out, err := exec.CommandContext(ctx, "cp", "-a", d.SnapshotDir(name), dst).CombinedOutput(); err != nil {
			return fmt.Errorf("cp -a: %w: %s", err, out)
		}
		d.step(start, "restore "+name+" with cp -a", "")
		start = time.Now()
		remark, err := d.open(ctx, name, dst)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
		d.step(start, "open the restored "+name+" and read all of it", "%s", remark)
		if err := os.RemoveAll(dst); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) open(ctx context.Context, name, dir string) (string, error) {
	g, err := graphdb.Open(dir, false)
	if err != nil {
		return "", err
	}
	got, err := g.Check(ctx)
	if err = errors.Join(err, g.Close()); err != nil {
		return "", err
	}
	if want, ok := d.facts[name]; ok {
		if got != want {
			return "", fmt.Errorf("holds %d nodes, %d edges, digest %.8x; it had %d, %d, %.8x", got.Nodes, got.Edges, got.Sum,
				want.Nodes, want.Edges, want.Sum)
		}
		return fmt.Sprintf("equal: %d nodes, %d edges, digest %.8x", got.Nodes, got.Edges, got.Sum), nil
	}
	if got.Commits < d.commits {
		return "", fmt.Errorf("holds %d commits, but %d had returned before it was asked for", got.Commits, d.commits)
	}
	return fmt.Sprintf("holds %d commits; %d had returned before it was asked for", got.Commits, d.commits), nil
}

func (d *demo) verify(ctx context.Context) error {
	start := time.Now()
	if _, err := d.Run(ctx, "verify", d.Mount, "--read-data"); err != nil {
		return err
	}
	d.step(start, "verify all snapshots and all their data", "")
	return nil
}

// remount closes the graph, mounts anew, and finds the graph and the snapshots as they were.
func (d *demo) remount(ctx context.Context) error {
	if err := d.graph.Close(); err != nil {
		return err
	}
	start := time.Now()
	if err := d.Umount(ctx); err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	all, err := d.Snapshots(ctx)
	if err != nil {
		return err
	}
	if len(all) != 3 {
		return fmt.Errorf("%d snapshots after the remount, want 3", len(all))
	}
	d.step(start, "unmount and mount again", "%d snapshots are there", len(all))
	return nil
}

func (d *demo) summary() {
	fmt.Fprintf(d.out, "\ndemo passed: full snapshot %s in %.0f ms, after 1%% change %s in %.0f ms, pauses %.3f and %.3f ms; "+
		"%d kills of the server unnoticed; 3 snapshots restored with cp and equal\n",
		size(d.one.StoredBytes), d.one.SealMS, size(d.two.StoredBytes), d.two.SealMS, d.one.PauseMS, d.two.PauseMS, d.kills)
}
