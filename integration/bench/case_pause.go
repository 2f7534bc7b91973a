package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"graphvol/integration/volume"
)

const sparseSize = 64 << 30

// pauses: how long writers wait at a barrier, with few and with many files beside a 64 GiB sparse file in which a writer
// syncs 4 KiB writes. Snapshots of the two volumes alternate.
func (b *bench) pauses(ctx context.Context) error {
	counts := []int{10, b.scale.ManyFiles}
	samples := make([][]float64, len(counts))
	volumes := make([]*volume.Volume, len(counts))
	writers := make([]*syncWriter, len(counts))
	for i, files := range counts {
		v, err := b.volume(fmt.Sprintf("pause%d", files))
		if err != nil {
			return err
		}
		defer b.remove(v)
		if err := makeFiles(v.Backing, files); err != nil {
			return err
		}
		if err := v.Start(ctx); err != nil {
			return err
		}
		if writers[i], err = newSyncWriter(filepath.Join(v.Mount, "sparse")); err != nil {
			return err
		}
		volumes[i] = v
	}
	for n := range b.scale.Pauses {
		for i, v := range volumes {
			s, err := writers[i].during(func() (volume.Snapshot, error) { return v.Snapshot(ctx, fmt.Sprintf("p%d", n)) })
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s.PauseMS)
		}
	}
	for i, files := range counts {
		if err := b.noteRSS(ctx, volumes[i]); err != nil {
			return err
		}
		b.report.add(sampled("pause", fmt.Sprintf("pause_ms, %d files", files), "ms", samples[i]),
			row{Case: "pause", Figure: fmt.Sprintf("pause_ms, %d files, longest", files), Unit: "ms",
				Value: slices.Max(samples[i])}.atMost(10),
			row{Case: "pause", Figure: fmt.Sprintf("longest synced 4 KiB write meanwhile, %d files", files), Unit: "ms",
				Value: float64(writers[i].longest.Microseconds()) / 1000})
	}
	b.report.add(row{Case: "pause", Figure: "many files, compared with few", Unit: "×",
		Value: median(samples[1]) / median(samples[0])}.atMost(1.5))
	for _, w := range writers {
		w.f.Close()
	}
	return nil
}

func makeFiles(dir string, count int) error {
	for i := range count {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%06d", i)), []byte(fmt.Sprintf("file %d\n", i)), 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(sparseSize)
}

// syncWriter writes 4 KiB at random places, each write synced.
type syncWriter struct {
	f       *os.File
	longest time.Duration
}

func newSyncWriter(path string) (*syncWriter, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return &syncWriter{f: f}, err
}

// during writes from some writes before fn until it returns.
func (w *syncWriter) during(fn func() (volume.Snapshot, error)) (volume.Snapshot, error) {
	stop, done, warm := make(chan struct{}), make(chan error, 1), make(chan struct{})
	go func() { done <- w.write(stop, warm) }()
	select {
	case <-warm:
	case err := <-done:
		return volume.Snapshot{}, fmt.Errorf("the writer ended: %w", err)
	}
	s, err := fn()
	close(stop)
	if werr := <-done; err == nil {
		err = werr
	}
	return s, err
}

func (w *syncWriter) write(stop <-chan struct{}, warm chan<- struct{}) error {
	page := make([]byte, pageSize)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for n := 0; ; n++ {
		if n == 50 {
			close(warm)
		}
		select {
		case <-stop:
			return nil
		default:
		}
		fillPage(rng, page)
		start := time.Now()
		if _, err := w.f.WriteAt(page, rng.Int64N(sparseSize/pageSize)*pageSize); err != nil {
			return err
		}
		if err := w.f.Sync(); err != nil {
			return err
		}
		w.longest = max(w.longest, time.Since(start))
	}
}
