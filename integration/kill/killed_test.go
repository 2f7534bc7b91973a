package kill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"graphvol/integration/model"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestKilled kills the server at random moments under all kinds of clients. None of them sees an error or a wrong byte, neither live nor in the snapshot
// that is taken afterwards, nor in the backing.
func TestKilled(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) { testKilled(t, cache) })
	}
}

func testKilled(t *testing.T, cache string) {
	k := &killer{Volume: rig.Mounted(t, volume.Options{Cache: cache}), rng: newRand(t)}
	ctx := t.Context()
	c := startClients(t, k.Mount, allClients())
	random := startModel(t, filepath.Join(k.Mount, modelDir), k.rng.Uint64())
	if _, err := k.Snapshot(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for i := 0; i < max(*runs, 6) || time.Since(begin) < *duration; i++ {
		k.pause(ctx, 30*time.Millisecond, 300*time.Millisecond)
		if i%5 == 3 {
			// It may be under way, or waiting for a server, when the next kill comes.
			_, err := k.Snapshot(ctx, fmt.Sprintf("at-work-%d", i), "--no-wait")
			oneLine(t, err)
		}
		k.once(t, i%7 == 5)
		if i%4 == 0 {
			c.progress(ctx)
		}
		if t.Failed() {
			break
		}
	}
	c.end(t)
	random.end(t)
	if t.Failed() {
		t.FailNow()
	}
	d := c.stalls(k.kills)
	t.Logf("%d kills; longest wait of a client: median %v, 99%% %v, most %v; steps:%s", len(d), d[len(d)/2], d[len(d)*99/100], d[len(d)-1], c.counts())
	c.check(t, k.Mount)
	checkVolume(t, k.Volume, "last")
	c.check(t, k.SnapshotDir("last"))
	random.check(t, k.SnapshotDir("last"), cache)
	live := describe(t, k.Mount)
	random.CloseFiles()
	c.close()
	if err := k.Umount(ctx); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "the backing", describe(t, k.Backing), live)
}

// once kills the server, and its successor while that recovers if twice is set.
func (k *killer) once(t testing.TB, twice bool) {
	t.Helper()
	if err := k.kill(); err != nil {
		t.Fatal(err)
	}
	if twice {
		k.pause(t.Context(), 0, 60*time.Millisecond)
		if err := k.kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.answered(); err != nil {
		t.Fatal(err)
	}
}

const modelDir = "model"

// randomOps are the random operations of package model, in the background.
type randomOps struct {
	*model.Run
	stop context.CancelFunc
	done chan error
	tree *model.Tree
}

func startModel(t testing.TB, dir string, seed uint64) *randomOps {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := model.New(dir, seed, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.CloseFiles)
	ctx, stop := context.WithCancel(t.Context())
	m := &randomOps{Run: r, stop: stop, done: make(chan error, 1)}
	m.MayRepeat(true)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			err = m.Round(20)
		}
		m.done <- err
	}()
	return m
}

func (m *randomOps) end(t testing.TB) {
	t.Helper()
	m.stop()
	if err := <-m.done; err != nil {
		t.Errorf("a random operation has noticed: %v\n%s", err, m.History())
		return
	}
	var err error
	if m.tree, err = m.Observe(); err != nil {
		t.Errorf("what random operations left: %v\n%s", err, m.History())
	}
}

func (m *randomOps) check(t testing.TB, root, cache string) {
	t.Helper()
	o := model.Options{}
	if cache == "writeback" {
		// A time that a killed server held is that of the data's writing then, for which the kernel takes its time.
		o.MtimeSlack = time.Minute
	}
	if err := m.tree.Compare(filepath.Join(root, modelDir), o); err != nil {
		t.Errorf("random operations, in %s: %v\n%s", root, err, m.History())
	}
}
