package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/index"
	"graphvol/snapshot"
)

// bare is a volume without a mount.
type bare struct {
	t           *testing.T
	back, state string
	repo        *snapshot.Repo
	vol         *cow.Volume
}

func newBare(t *testing.T) *bare {
	dir := t.TempDir()
	b := &bare{t: t, back: filepath.Join(dir, "back"), state: filepath.Join(dir, "state")}
	if err := errors.Join(os.Mkdir(b.back, 0o755), os.Mkdir(b.state, 0o755)); err != nil {
		t.Fatal(err)
	}
	b.open()
	t.Cleanup(func() {
		b.vol.Close(context.Background())
		b.repo.Close()
	})
	return b
}

func (b *bare) openRepo() {
	b.t.Helper()
	var err error
	if b.repo, err = snapshot.Open(b.t.Context(), snapshot.Config{State: b.state, Log: quiet()}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bare) open() {
	b.t.Helper()
	b.openRepo()
	root, err := os.Open(b.back)
	if err != nil {
		b.t.Fatal(err)
	}
	tree, err := backing.Open(backing.Config{Root: root, State: b.state, Log: quiet()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.vol, err = cow.Open(b.t.Context(), cow.Config{Tree: tree, DB: b.repo.Index(), State: b.state, Log: quiet(), Recorded: b.repo.Recorded()})
	if err != nil {
		b.t.Fatal(err)
	}
}

// write replaces a file's content.
func (b *bare) write(name string, content []byte) {
	b.t.Helper()
	a, err := b.vol.Create(cow.Caller{}, b.vol.Root(), name, uint32(os.O_RDWR), 0o644)
	if err == nil {
		_, err = b.vol.Write(a.Ino, content, 0, cow.WriteFlags{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// unreleased is a source whose process dies before it hears that its snapshot is complete.
type unreleased struct{ snapshot.Source }

func (unreleased) Release(bool) {}

func (b *bare) snapshot(dies bool) index.Snapshot {
	b.t.Helper()
	e, _, err := b.vol.Barrier(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	snap, err := b.repo.Begin("", snapshot.BeginOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	e.SetID(snap.ID)
	var src snapshot.Source = e
	if dies {
		src = unreleased{e}
	}
	if snap, err = b.repo.Seal(b.t.Context(), snap, src, nil); err != nil {
		b.t.Fatal(err)
	}
	return snap
}

// has tells whether a snapshot's file is this.
func (b *bare) has(snap index.Snapshot, name string, want []byte) {
	b.t.Helper()
	rd, err := b.repo.Reader(b.t.Context(), snap)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rd.Close()
	d, err := rd.Lookup(b.t.Context(), rd.Root(), name)
	if err != nil {
		b.t.Error(err)
		return
	}
	got := make([]byte, len(want))
	if _, err := rd.ReadAt(b.t.Context(), d.Ino, got, 0); err != nil || !bytes.Equal(got, want) {
		b.t.Errorf("%s of snapshot %s differs: %v", name, snap.Name, err)
	}
}

// A snapshot is complete, the process dies before anybody hears of it, and that snapshot is deleted before the next mount: what
// has changed since the one before is known to nobody, so the next one is full.
func TestDeathAfterASnapshotThatIsDeletedThen(t *testing.T) {
	b := newBare(t)
	one, two, three := bytes.Repeat([]byte{1}, 9000), bytes.Repeat([]byte{2}, 9000), bytes.Repeat([]byte{3}, 9000)
	b.write("f", one)
	b.write("g", one)
	b.snapshot(false)
	b.write("f", two)
	lost := b.snapshot(true)
	// Without its index the volume can't record anything in order.
	if err := b.repo.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.vol.Close(t.Context()); err == nil {
		t.Fatal("the volume was closed in order")
	}

	b.openRepo()
	if err := errors.Join(b.repo.Delete(t.Context(), []index.Snapshot{lost}), b.repo.Close()); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.write("g", three)
	snap := b.snapshot(false)
	if snap.Kind != index.KindFull || snap.Epoch <= lost.Epoch {
		t.Errorf("the snapshot after: %s, of epoch %d after %d", snap.Kind, snap.Epoch, lost.Epoch)
	}
	b.has(snap, "f", two)
	b.has(snap, "g", three)
	b.write("f", three)
	snap = b.snapshot(false)
	if snap.Kind != index.KindIncremental {
		t.Errorf("the one after that: %s", snap.Kind)
	}
	b.has(snap, "f", three)
}
