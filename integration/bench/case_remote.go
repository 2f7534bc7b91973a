package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/volume"
)

// remote: what an encrypted copy in a bucket costs in requests and bytes: the first upload, incrementals, and, from a state that has nothing
// else, attaching, listing and restoring. A proxy counts. Nothing is timed.
func (b *bench) remote(ctx context.Context) error {
	s, done, err := b.s3Server(ctx)
	defer done()
	if err != nil {
		return err
	}
	m, err := newMeter(s)
	if err != nil {
		return err
	}
	defer m.close()
	at := "s3://" + s3test.Bucket + "/remote?endpoint=http://" + m.addr + "&insecure=1"
	v, err := b.volume("remote")
	if err != nil {
		return err
	}
	defer b.remove(v)
	v.Args = []string{"--target", at}
	if err := b.upload(ctx, v, m); err != nil {
		return err
	}
	key := filepath.Join(b.dir, "recovery.txt")
	defer os.Remove(key)
	if err := recoveryText(ctx, v.Run, v.Mount, key); err != nil {
		return err
	}
	if err := v.Umount(ctx); err != nil {
		return err
	}
	return b.download(ctx, v, s, m, at, key)
}

// upload takes a full and some incremental snapshots.
func (b *bench) upload(ctx context.Context, v *volume.Volume, m *meter) error {
	if err := makePages(filepath.Join(v.Backing, pagesName), b.scale.RemoteMiB, 1); err != nil {
		return err
	}
	if err := v.Start(ctx); err != nil {
		return err
	}
	m.take()
	full, err := copied(ctx, v, m, "full")
	if err != nil {
		return err
	}
	b.trafficRow("first upload", full.traffic)
	var ratio, requests []float64
	count := b.scale.RemoteMiB << 20 / pageSize * b.scale.ChangedPct / 100
	for i := range 5 {
		if err := changePages(filepath.Join(v.Mount, pagesName), count, b.nextSeed()); err != nil {
			return err
		}
		inc, err := copied(ctx, v, m, fmt.Sprintf("inc%d", i))
		if err != nil {
			return err
		}
		ratio = append(ratio, float64(inc.up)/float64(inc.stored))
		requests = append(requests, float64(inc.total()))
	}
	b.report.add(sampled("remote", "incremental, 1% of the pages: bytes uploaded / stored_bytes", "×", ratio),
		row{Case: "remote", Figure: "the same, most", Unit: "×", Value: slices.Max(ratio)}.atMost(1.1),
		sampled("remote", "incremental: requests", "", requests))
	return b.noteRSS(ctx, v)
}

// upload is what a snapshot has sent.
type upload struct {
	traffic
	stored int64
}

// copied takes a snapshot and waits until the copy has it.
func copied(ctx context.Context, v *volume.Volume, m *meter, name string) (u upload, err error) {
	snap, err := v.Snapshot(ctx, name)
	if err != nil {
		return u, err
	}
	if _, err := v.Run(ctx, "sync", v.Mount, "--wait"); err != nil {
		return u, err
	}
	return upload{m.take(), snap.StoredBytes}, nil
}

// download attaches the copy and restores its newest snapshot.
func (b *bench) download(ctx context.Context, v *volume.Volume, s *s3test.Server, m *meter, at, key string) error {
	state, dest := filepath.Join(b.dir, "attached"), filepath.Join(b.dir, "restored")
	defer func() { os.RemoveAll(state); os.RemoveAll(dest) }()
	m.take()
	out, err := v.Run(ctx, "attach", at, state, "--key", key, "--json")
	if err != nil {
		return err
	}
	var attached struct{ Chunks, Packs int64 }
	if err := json.Unmarshal([]byte(out), &attached); err != nil {
		return err
	}
	b.trafficRow("attach", m.take())
	for _, args := range [][]string{{"snapshots", state}, {"restore", state, "latest", dest}} {
		if _, err := v.Run(ctx, args...); err != nil {
			return err
		}
		b.trafficRow(args[0]+" of the attached copy", m.take())
	}
	if err := sameFile(filepath.Join(v.Backing, pagesName), filepath.Join(dest, pagesName)); err != nil {
		return err
	}
	n, err := objects(s)
	b.report.add(row{Case: "remote", Figure: "chunks stored", Value: float64(attached.Chunks)}, row{Case: "remote", Figure: "objects in the bucket", Value: float64(n)},
		row{Case: "remote", Figure: "chunks an object", Value: float64(attached.Chunks) / float64(n)}.atLeast(10))
	return err
}

func (b *bench) trafficRow(what string, t traffic) {
	for _, method := range []string{"GET", "PUT", "POST", "HEAD", "DELETE"} {
		if n := t.requests[method]; n > 0 {
			b.report.add(row{Case: "remote", Figure: what + ": " + method, Unit: "requests", Value: float64(n)})
		}
	}
	b.report.add(row{Case: "remote", Figure: what + ": requests in all", Unit: "requests", Value: float64(t.total())},
		row{Case: "remote", Figure: what + ": bytes up", Unit: "MiB", Value: float64(t.up) / (1 << 20)},
		row{Case: "remote", Figure: what + ": bytes down", Unit: "MiB", Value: float64(t.down) / (1 << 20)})
}

// sameFile makes sure that what was restored is what was sealed: a fast restore of other bytes counts for nothing.
func sameFile(a, b string) error {
	x, err := hashFile(a)
	y, yerr := hashFile(b)
	if err = errors.Join(err, yerr); err == nil && x != y {
		err = fmt.Errorf("%s and %s differ", a, b)
	}
	return err
}
