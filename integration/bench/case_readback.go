package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// readback: reading a snapshot of the file of pages through .snapshots and through borg's mount, one after the other, in
// three states: cold (all caches dropped); warm (it was read before, so that the program and the disk's cache know it, but
// the kernel has none of the mount's pages, so that the program serves every read); and, for comparison, from the kernel's
// page cache. The snapshot is the one before the newest, so that a part of it is in the store only.
func (b *bench) readback(ctx context.Context) error {
	own, done, err := b.ownReadback(ctx)
	defer done()
	if err != nil {
		return err
	}
	borg, undo, err := b.borgReadback(ctx)
	defer undo()
	if err != nil {
		return err
	}
	samples := map[string][]float64{}
	for range b.scale.Rounds {
		for _, s := range []struct{ name, path string }{{"graphvol", own}, {"borg", borg}} {
			if err := b.readOne(s.name, s.path, samples); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"graphvol", "borg"} {
		b.report.add(sampled("readback", name+": sequential, cold", "MB/s", samples[name+" cold"]),
			sampled("readback", name+": sequential, warm", "MB/s", samples[name+" warm"]),
			sampled("readback", name+": sequential, page cache", "MB/s", samples[name+" cached"]),
			sampled("readback", name+": random 4 KiB, warm", "reads/s", samples[name+" random"]))
	}
	b.report.add(
		sampled("readback", "sequential, warm, compared with borg", "×", ratios(samples["graphvol warm"], samples["borg warm"])).atLeast(4),
		row{Case: "readback", Figure: "random 4 KiB reads, warm", Unit: "reads/s", Value: median(samples["graphvol random"])}.atLeast(10000))
	return nil
}

func (b *bench) readOne(name, path string, samples map[string][]float64) error {
	if err := dropCaches(); err != nil {
		fmt.Println("  ", err)
	}
	for _, how := range []string{"cold", "warm", "cached"} {
		if how == "warm" {
			if err := dropPages(path); err != nil {
				return err
			}
		}
		rate, err := readSequential(path)
		if err != nil {
			return err
		}
		samples[name+" "+how] = append(samples[name+" "+how], rate)
	}
	if err := dropPages(path); err != nil {
		return err
	}
	reads := b.scale.RandomReads
	if name == "borg" {
		reads = min(reads, 5000)
	}
	rate, err := readRandom(path, reads)
	samples[name+" random"] = append(samples[name+" random"], rate)
	return err
}

// dropPages empties the kernel's page cache of one file, and of no other.
func dropPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func (b *bench) ownReadback(ctx context.Context) (string, func(), error) {
	v, err := b.volume("readback")
	if err != nil {
		return "", func() {}, err
	}
	done := func() { b.remove(v) }
	if err := makePages(filepath.Join(v.Backing, pagesName), b.scale.FileMiB, 1); err != nil {
		return "", done, err
	}
	if err := v.Start(ctx); err != nil {
		return "", done, err
	}
	for i := range 3 {
		if _, err := v.Snapshot(ctx, fmt.Sprintf("s%d", i)); err != nil {
			return "", done, err
		}
		if err := changePages(filepath.Join(v.Mount, pagesName), b.changed(), b.nextSeed()); err != nil {
			return "", done, err
		}
	}
	return filepath.Join(v.SnapshotDir("s1"), pagesName), done, b.noteRSS(ctx, v)
}

func (b *bench) borgReadback(ctx context.Context) (string, func(), error) {
	p := b.peers()[0]
	plain, mnt := filepath.Join(b.dir, "plain"), filepath.Join(b.dir, "borg-mnt")
	done := func() {
		p.run(context.WithoutCancel(ctx), []string{"borg", "umount", mnt})
		os.RemoveAll(p.repo)
		os.RemoveAll(plain)
		os.Remove(mnt)
	}
	if err := errors.Join(os.MkdirAll(plain, 0o755), os.MkdirAll(mnt, 0o755)); err != nil {
		return "", done, err
	}
	source := filepath.Join(plain, pagesName)
	if err := makePages(source, b.scale.FileMiB, 1); err != nil {
		return "", done, err
	}
	if err := p.fresh(ctx); err != nil {
		return "", done, err
	}
	for n := range 3 {
		if _, _, err := p.backup(ctx, plain, n); err != nil {
			return "", done, err
		}
		if err := changePages(source, b.changed(), b.nextSeed()); err != nil {
			return "", done, err
		}
	}
	if err := p.run(ctx, []string{"borg", "mount", p.repo + "::a1", mnt}); err != nil {
		return "", done, err
	}
	return filepath.Join(mnt, source), done, nil
}

// readSequential returns MB/s.
func readSequential(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	start, total := time.Now(), 0
	for {
		n, err := f.Read(buf)
		total += n
		if errors.Is(err, io.EOF) {
			return float64(total) / 1e6 / time.Since(start).Seconds(), nil
		} else if err != nil {
			return 0, err
		}
	}
}

// readRandom returns reads/s.
func readRandom(path string, reads int) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// Without this the kernel reads ahead, and a read at random is a hit by chance.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return 0, err
	}
	rng := rand.New(rand.NewPCG(1, 3))
	page := make([]byte, pageSize)
	start := time.Now()
	for range reads {
		if _, err := f.ReadAt(page, rng.Int64N(info.Size()/pageSize)*pageSize); err != nil {
			return 0, err
		}
	}
	return float64(reads) / time.Since(start).Seconds(), nil
}
