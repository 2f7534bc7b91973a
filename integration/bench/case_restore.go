package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/volume"
)

// restoreFiles is the number of files that are restored.
const restoreFiles = 32

// restoring is what the two programs restore, from one S3 server. Both repositories are encrypted.
type restoring struct {
	dir, url, key string
	v             *volume.Volume
	restic        *peer
}

// restore: a machine that has nothing but the key gets a directory of random bytes back from a bucket: graphvol attach and restore, restic restore
// with an empty cache. The server's own files are in the page cache for both, so that the disk below the server isn't what is measured.
func (b *bench) restore(ctx context.Context) error {
	s, done, err := b.s3Server(ctx)
	defer done()
	if err != nil {
		return err
	}
	v, err := b.volume("restore")
	if err != nil {
		return err
	}
	defer b.remove(v)
	r := &restoring{dir: filepath.Join(b.dir, "restored"), url: s.URL("graphvol"), key: filepath.Join(b.dir, "recovery.txt"), v: v, restic: peersIn(filepath.Join(b.dir, "restic-s3"))[1]}
	defer func() {
		os.RemoveAll(filepath.Join(b.dir, "restic-s3"))
		os.Remove(r.key)
		os.RemoveAll(r.dir)
	}()
	if err := b.copyOut(ctx, r, s); err != nil {
		return err
	}
	samples := map[string][]float64{}
	runs := []func(context.Context, map[string][]float64) error{r.own, r.peer}
	for round := range b.scale.RestoreRounds {
		for i := range runs {
			if err := r.warm(s); err != nil {
				return err
			}
			if err := runs[(i+round)%len(runs)](ctx, samples); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"graphvol: attach", "graphvol: restore", "graphvol: both", "restic: restore"} {
		b.report.add(sampled("restore", name, "s", samples[name]))
	}
	b.report.add(sampled("restore", fmt.Sprintf("%d MiB from S3, times as fast as restic", b.scale.RestoreMiB), "×",
		ratios(samples["restic: restore"], samples["graphvol: both"])).atLeast(2))
	return nil
}

// copyOut brings the same files to the server with both programs.
func (b *bench) copyOut(ctx context.Context, r *restoring, s *s3test.Server) error {
	if err := randomFiles(r.v.Backing, restoreFiles, b.scale.RestoreMiB<<20/restoreFiles); err != nil {
		return err
	}
	r.v.Args = []string{"--target", r.url}
	if err := r.v.Start(ctx); err != nil {
		return err
	}
	var own, restic float64
	err := seconds(&own, func() error {
		if _, err := r.v.Snapshot(ctx, "all"); err != nil {
			return err
		}
		_, err := r.v.Run(ctx, "sync", r.v.Mount, "--wait")
		return err
	})
	if err == nil {
		err = errors.Join(recoveryText(ctx, r.v.Run, r.v.Mount, r.key), b.noteRSS(ctx, r.v), r.v.Umount(ctx))
	}
	if err != nil {
		return err
	}
	r.restic.repo = "s3:" + s.Endpoint() + "/" + s3test.Bucket + "/restic"
	if err := r.restic.run(ctx, []string{"restic", "-q", "init", "-r", r.restic.repo}); err != nil {
		return err
	}
	if err := seconds(&restic, func() error { return r.restic.run(ctx, r.restic.save(r.v.Backing, 0)) }); err != nil {
		return err
	}
	b.report.add(row{Case: "restore", Figure: "graphvol: first snapshot and copying it out", Unit: "s", Value: own},
		row{Case: "restore", Figure: "restic: first backup", Unit: "s", Value: restic})
	return nil
}

func seconds(into *float64, fn func() error) error {
	start := time.Now()
	err := fn()
	*into = time.Since(start).Seconds()
	return err
}

// warm removes what the run before has restored, and reads all that the server has.
func (r *restoring) warm(s *s3test.Server) error {
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	settle()
	return filepath.WalkDir(s.Root, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		_, err = hashFile(path)
		return err
	})
}

func (r *restoring) own(ctx context.Context, samples map[string][]float64) error {
	state := filepath.Join(r.dir, "state")
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	var attach, restore float64
	if err := seconds(&attach, func() error {
		_, err := r.v.Run(ctx, "attach", r.url, state, "--key", r.key)
		return err
	}); err != nil {
		return err
	}
	if err := seconds(&restore, func() error {
		_, err := r.v.Run(ctx, "restore", state, "latest", filepath.Join(r.dir, "files"))
		return err
	}); err != nil {
		return err
	}
	samples["graphvol: attach"] = append(samples["graphvol: attach"], attach)
	samples["graphvol: restore"] = append(samples["graphvol: restore"], restore)
	samples["graphvol: both"] = append(samples["graphvol: both"], attach+restore)
	return r.same(filepath.Join(r.dir, "files"))
}

func (r *restoring) peer(ctx context.Context, samples map[string][]float64) error {
	// Its cache is beside the repository that it would have on disk.
	if err := os.RemoveAll(filepath.Join(filepath.Dir(r.dir), "restic-s3")); err != nil {
		return err
	}
	var took float64
	err := seconds(&took, func() error {
		return r.restic.run(ctx, []string{"restic", "-q", "restore", "latest", "-r", r.restic.repo, "--target", r.dir})
	})
	if err != nil {
		return err
	}
	samples["restic: restore"] = append(samples["restic: restore"], took)
	return r.same(filepath.Join(r.dir, r.v.Backing))
}

// same compares what was restored with what was sealed.
func (r *restoring) same(dir string) error {
	for i := range restoreFiles {
		if err := sameFile(filepath.Join(r.v.Backing, fileName(i)), filepath.Join(dir, fileName(i))); err != nil {
			return err
		}
	}
	return nil
}

func fileName(i int) string { return fmt.Sprintf("f%02d", i) }

// randomFiles makes files of what can't be compressed.
func randomFiles(dir string, count, size int) error {
	for i := range count {
		if err := randomFile(filepath.Join(dir, fileName(i)), size, uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

func randomFile(path string, size int, seed uint64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	buf := make([]byte, 1<<20)
	for done := 0; done < size; done += len(buf) {
		buf = buf[:min(len(buf), size-done)]
		rng.Read(buf)
		if _, err := f.WriteAt(buf, int64(done)); err != nil {
			return err
		}
	}
	return f.Sync()
}
