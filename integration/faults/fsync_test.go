package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"graphvol/index"
)

// durableIndex collects what is durable of the index after each fsync: what a power cut would leave.
type durableIndex struct {
	mu     sync.Mutex
	images [][]byte
}

func (d *durableIndex) synced(path string, content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if path == "index.db" && (len(d.images) == 0 || !bytes.Equal(d.images[len(d.images)-1], content)) {
		d.images = append(d.images, bytes.Clone(content))
	}
}

// check opens each of the images.
func (d *durableIndex) check(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, image := range d.images {
		path := filepath.Join(t.TempDir(), "index.db")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := index.Open(path, index.Options{})
		if err != nil {
			t.Errorf("power cut after %d of %d fsyncs: %v", i+1, len(d.images), err)
			continue
		}
		if err := db.Check(context.Background()); err != nil {
			t.Errorf("power cut after %d of %d fsyncs: %v", i+1, len(d.images), err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	d.images = nil
}

// TestFailedSync fails an fsync as Linux does: the data stays readable, and isn't on the disk though the next fsync succeeds. Whenever
// the power fails after that, the index is whole; and when it fails in the end, the volume's snapshots are, and the next one is right.
func TestFailedSync(t *testing.T) {
	n := seed(t)
	s := newSubject(t, n)
	var durable durableIndex
	s.disk.Track(durable.synced)
	s.disk.Arm(Fault{At: 1 << 30})
	taken := s.work()
	_, count := s.disk.Disarm()
	s.check(taken)
	durable.check(t)
	calls := rand.New(rand.NewPCG(n, 3)).Perm(count[Fsync])
	if !*sweepAll {
		calls = calls[:min(1+*sweepRuns/4, len(calls))]
	}
	for _, at := range calls {
		t.Run(fmt.Sprintf("fsync %d", at), func(t *testing.T) {
			s.disk.Track(durable.synced)
			s.fail(t, Fault{Kinds: Fsync, At: at, Errno: syscall.EIO})
			durable.check(t)
			s.powerCut(t)
		})
	}
}

// powerCut cuts the power of the state's disk, and lets the volume go on.
func (s *subject) powerCut(t *testing.T) {
	t.Helper()
	outer, inner := s.t, s.db.t
	s.t, s.db.t = t, t
	defer func() { s.t, s.db.t = outer, inner }()
	s.db.overwrite(3)
	s.db.close()
	for _, step := range []func() error{
		func() error { return s.vol.KillAll(t.Context()) }, s.unmountDead, s.disk.Unmount, s.disk.CutPower, s.disk.Mount,
		func() error { return s.vol.Start(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	s.db.open()
	s.round++
	s.check(map[string]map[string][]byte{})
}

// unmountDead removes the mount of the dead server, which would keep nothing busy but the rig's count.
func (s *subject) unmountDead() error { return syscall.Unmount(s.vol.Mount, syscall.MNT_DETACH) }
