package kill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestHolderKilled kills the holder too: the mount dies, its clients see that, and graphvol mount brings everything back that had been given to the server or
// was synced.
func TestHolderKilled(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			k := &killer{Volume: rig.Mounted(t, volume.Options{Cache: cache}), rng: newRand(t)}
			for i := range max(2, *runs/10) {
				k.everything(t, i)
				if t.Failed() {
					t.FailNow()
				}
			}
		})
	}
}

// everything has one volume die under writers, and mounts it again.
func (k *killer) everything(t *testing.T, i int) {
	ctx := t.Context()
	w := startWriters(t, k.Mount, i, k.Cache)
	k.pause(ctx, 50*time.Millisecond, 400*time.Millisecond)
	pending := fmt.Sprintf("pending-%d", i)
	if i%2 == 1 {
		if _, err := k.Snapshot(ctx, pending, "--no-wait"); err != nil {
			t.Fatal(err)
		}
	}
	k.killHolder(t, i%3 == 2)
	w.wait(t)
	before := volume.Processes(k.Bin)
	if err := k.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range before {
		if unix.Kill(pid, 0) == nil {
			t.Errorf("process %d of the dead mount still runs", pid)
		}
	}
	points := 0
	for _, m := range volume.Mounts() {
		if m == k.Mount {
			points++
		}
	}
	if points != 1 {
		t.Errorf("%d mounts at %s, want 1", points, k.Mount)
	}
	w.check(t, k.Mount)
	checkVolume(t, k.Volume, fmt.Sprintf("after-%d", i))
	w.check(t, k.SnapshotDir(fmt.Sprintf("after-%d", i)))
}

// killHolder kills holder and server; first the holder alone if apart is set, when the server must serve on.
func (k *killer) killHolder(t *testing.T, apart bool) {
	t.Helper()
	info, err := k.pids()
	if err != nil {
		t.Fatal(err)
	}
	kill := func(pid int) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Errorf("kill %d: %v", pid, err)
		}
	}
	kill(info.Holder.PID)
	if apart {
		path := filepath.Join(k.Mount, "without-a-holder")
		rig.SameFile(t, path, rig.WriteFile(t, path, 10_000))
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	kill(info.Server.PID)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := errors.Join(info.Holder.Wait(ctx), info.Server.Wait(ctx)); err != nil {
		t.Fatal(err)
	}
}

// writers count up in files until their mount dies.
type writers struct {
	dir string // below the mount
	wg  sync.WaitGroup
	all map[string]*writer
}

// writer writes records one after the other. What returned is acknowledged.
type writer struct {
	write    func(i uint64) error
	returned atomic.Uint64
	err      error
}

// startWriters: "synced" syncs each record; "given" doesn't, which counts only if the cache is written through; "renamed" syncs a file and renames it.
func startWriters(t *testing.T, mount string, i int, cache string) *writers {
	t.Helper()
	w := &writers{dir: fmt.Sprintf("w%d", i), all: map[string]*writer{}}
	dir := filepath.Join(mount, w.dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(name string, flags int) int {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	log := func(fd int) *writer {
		return &writer{write: func(i uint64) error { _, err := unix.Pwrite(fd, record(i), int64(i)*64); return err }}
	}
	synced, given := open("synced", unix.O_DSYNC), open("given", 0)
	w.all["synced"] = log(synced)
	if cache == "through" {
		w.all["given"] = log(given)
	}
	w.all["renamed"] = &writer{write: func(i uint64) error { return saveRecord(dir, i) }}
	for _, x := range w.all {
		w.wg.Go(func() {
			for i := uint64(0); x.err == nil; i++ {
				if x.err = x.write(i); x.err == nil {
					x.returned.Store(i + 1)
				}
			}
		})
	}
	t.Cleanup(func() { unix.Close(synced); unix.Close(given) })
	return w
}

func saveRecord(dir string, i uint64) error {
	tmp, name := filepath.Join(dir, "tmp"), filepath.Join(dir, "renamed")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(record(i))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// wait returns when all writers have seen that the mount is dead, and nothing else.
func (w *writers) wait(t *testing.T) {
	t.Helper()
	w.wg.Wait()
	for name, x := range w.all {
		if !errors.Is(x.err, unix.ENOTCONN) && !errors.Is(x.err, unix.ECONNABORTED) && !errors.Is(x.err, unix.EIO) {
			t.Errorf("%s: %v; want that the mount is dead", name, x.err)
		}
		if x.returned.Load() == 0 {
			t.Errorf("%s has written nothing", name)
		}
	}
}

// check reads what is there: all that was acknowledged, and at most one record more, which was under way.
func (w *writers) check(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, w.dir)
	for name, x := range w.all {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		n := x.returned.Load()
		if name == "renamed" {
			if err != nil || string(raw) != string(record(n-1)) && string(raw) != string(record(n)) {
				t.Errorf("%s in %s isn't one of the last two: %v", name, root, err)
			}
			continue
		}
		if err != nil || uint64(len(raw)) < n*64 || uint64(len(raw)) > (n+1)*64 {
			t.Errorf("%s in %s has %d bytes, %v; %d records were acknowledged", name, root, len(raw), err, n)
			continue
		}
		for i := range n {
			if string(raw[i*64:i*64+64]) != string(record(i)) {
				t.Errorf("%s in %s: record %d isn't what was written", name, root, i)
				break
			}
		}
	}
}
