package kill

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var (
	stallFiles = flag.Int("stall.files", 100_000, "files that the kernel knows in BenchmarkStall")
	stallDirty = flag.Int("stall.dirty", 1<<10, "MiB changed since the last snapshot in BenchmarkStall")
)

// BenchmarkStall measures the longest wait of a client around a kill of the server of a large volume, and in times as long without one. An iteration is
// a kill. The client writes 4 KiB through to the server again and again, so that it is always waiting for an answer.
func BenchmarkStall(b *testing.B) {
	v := largeVolume(b)
	f, err := os.OpenFile(filepath.Join(v.Mount, "writer"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	stop := make(chan struct{})
	waits := make(chan []window)
	go func() { waits <- writeUntil(b, f, stop) }()
	k := &killer{Volume: v, rng: newRand(b)}
	var calm []window
	for b.Loop() {
		begin := time.Now()
		k.pause(b.Context(), 300*time.Millisecond, 700*time.Millisecond)
		calm = append(calm, window{begin, time.Now()})
		if err := k.kill(); err != nil {
			b.Fatal(err)
		}
		if err := k.answered(); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	all := <-waits
	report(b, "killed", stalls(all, k.kills))
	report(b, "calm", stalls(since(all, calm), calm))
}

// largeVolume mounts a volume with many files that the kernel knows, a snapshot of them, and much that has changed since.
func largeVolume(b *testing.B) *volume.Volume {
	v := rig.NewVolume(b, volume.Options{Cache: "through", Args: []string{"--log-level", "debug"}})
	const perDir = 500
	for i := range *stallFiles {
		dir := filepath.Join(v.Backing, fmt.Sprintf("d%d", i/perDir))
		if i%perDir == 0 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), fmt.Append(nil, i), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	if err := v.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	const chunk = 64 << 20
	change := func() {
		for i := range *stallDirty << 20 / chunk {
			rig.WriteFile(b, filepath.Join(v.Mount, fmt.Sprintf("big%d", i)), chunk)
		}
	}
	change()
	if _, err := v.Snapshot(b.Context(), "first"); err != nil {
		b.Fatal(err)
	}
	change()
	know(b, v.Mount)
	unix.Sync() // what is measured is not the disk
	return v
}

// know makes the kernel ask for every file.
func know(b *testing.B, dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			know(b, path)
		} else if _, err := os.Lstat(path); err != nil {
			b.Fatal(err)
		}
	}
}

// writeUntil writes blocks, and returns when each request began and ended that took long.
func writeUntil(b *testing.B, f *os.File, stop <-chan struct{}) []window {
	var slow []window
	p := rig.RandomBytes(4096)
	for i := int64(0); ; i++ {
		select {
		case <-stop:
			return slow
		default:
		}
		begin := time.Now()
		if _, err := f.WriteAt(p, i%1000*4096); err != nil {
			b.Errorf("write: %v", err)
		}
		if end := time.Now(); end.Sub(begin) > time.Millisecond {
			slow = append(slow, window{begin, end})
		}
	}
}

// since leaves out waits that began before one of the windows, which is where a stall ends.
func since(waits, in []window) []window {
	return slices.DeleteFunc(slices.Clone(waits), func(x window) bool {
		return slices.ContainsFunc(in, func(w window) bool { return x.from.Before(w.from) && w.from.Before(x.to) })
	})
}

// stalls gives, for each of the windows, the longest wait that overlaps it, ascending.
func stalls(waits, in []window) []time.Duration {
	longest := make([]time.Duration, len(in))
	for i, w := range in {
		for _, x := range waits {
			if x.from.Before(w.to) && w.from.Before(x.to) {
				longest[i] = max(longest[i], x.to.Sub(x.from))
			}
		}
	}
	slices.Sort(longest)
	return longest
}

func report(b *testing.B, what string, d []time.Duration) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(d[len(d)/2]), what+"-p50-ms")
	b.ReportMetric(ms(d[len(d)*99/100]), what+"-p99-ms")
	b.ReportMetric(ms(d[len(d)-1]), what+"-max-ms")
}
