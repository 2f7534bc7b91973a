// Command demo shows a volume at work: a small property graph in Badger is filled on a mounted volume, snapshotted,
// changed by 1%, snapshotted again; the server is killed while the graph is written; the snapshots are browsed, copied
// out with cp, opened and compared. It prints what each step cost, and ends with one line that sums it up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"graphvol/integration/volume"
)

func main() {
	bin := flag.String("bin", "bin/graphvol", "the graphvol binary")
	dir := flag.String("dir", "", "an empty directory to work in; default: a temporary one, removed at the end")
	nodes := flag.Int("nodes", 100_000, "nodes of the graph; it has three times as many edges")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *bin, *dir, *nodes)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, dir string, nodes int) error {
	if err := usable(); err != nil {
		return err
	}
	if dir == "" {
		tmp, err := os.MkdirTemp("", "graphvol-demo")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	v, err := volume.New(volume.Options{Bin: abs, Dir: dir})
	if err != nil {
		return err
	}
	defer v.Close()
	d := &demo{Volume: v, nodes: nodes, out: os.Stdout}
	for _, step := range []func(context.Context) error{
		d.mount, d.load, d.first, d.change, d.second, d.kill, d.browse, d.compare, d.verify, d.remount,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := v.Umount(ctx); err != nil {
		return err
	}
	d.summary()
	return nil
}

// usable says in one line what FUSE lacks here.
func usable() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run the demo as root, or let everyone use FUSE: chmod 666 /dev/fuse", err)
	case err != nil:
		return fmt.Errorf("%w; load the kernel module (modprobe fuse), or give the container the device", err)
	}
	return f.Close()
}

// step prints one line: what was done, how long it took, and a remark.
func (d *demo) step(start time.Time, what, remark string, args ...any) {
	fmt.Fprintf(d.out, "%-58s %9s  %s\n", what, round(time.Since(start)), fmt.Sprintf(remark, args...))
}

func round(t time.Duration) string {
	if t < time.Second {
		return t.Round(100 * time.Microsecond).String()
	}
	return t.Round(10 * time.Millisecond).String()
}

func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
