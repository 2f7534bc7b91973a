package soak

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

const (
	keptSnapshots = 10
	keptFiles     = 20
	dataBytes     = 6 << 20 // large enough for fingerprints
	writes        = 4       // blocks of the data file that change between snapshots
)

// user is a database and its administrator: it writes a little, takes a snapshot, reads old ones, and keeps the newest.
type user struct {
	t    testing.TB
	v    *volume.Volume
	rnd  *rand.Rand
	data []byte
	log  []byte
	n    int // snapshots taken
	kept []taken
}

// taken is what a snapshot must hold.
type taken struct {
	name      string
	data, log []byte
}

func newUser(t testing.TB, v *volume.Volume, seed uint64) *user {
	t.Logf("seed %d", seed)
	u := &user{t: t, v: v, rnd: rand.New(rand.NewPCG(seed, 0)), data: rig.RandomBytes(dataBytes)}
	u.must(os.WriteFile(u.path("data"), u.data, 0o644))
	return u
}

func (u *user) path(name string) string { return filepath.Join(u.v.Mount, name) }

func (u *user) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatalf("after %d snapshots: %v", u.n, err)
	}
}

func (u *user) run(args ...string) {
	u.t.Helper()
	_, err := u.v.Run(u.t.Context(), args...)
	u.must(err)
}

// write changes some blocks, appends to a log that begins anew now and then, makes a file and removes an old one.
func (u *user) write() {
	f, err := os.OpenFile(u.path("data"), os.O_RDWR, 0)
	u.must(err)
	defer f.Close()
	for range writes {
		off := u.rnd.IntN(dataBytes/4096) * 4096
		p := rig.RandomBytes(4096)
		copy(u.data[off:], p)
		_, err := f.WriteAt(p, int64(off))
		u.must(err)
	}
	if len(u.log) > 1<<20 {
		u.log = nil
	}
	u.log = append(u.log, rig.RandomBytes(u.rnd.IntN(20_000))...)
	u.must(os.WriteFile(u.path("log.new"), u.log, 0o644))
	u.must(os.Rename(u.path("log.new"), u.path("log")))
	u.must(os.WriteFile(u.path(fmt.Sprintf("file%d", u.n)), rig.RandomBytes(5000), 0o644))
	if old := u.n - keptFiles; old >= 0 {
		u.must(os.Remove(u.path(fmt.Sprintf("file%d", old))))
	}
}

// cycle is one snapshot with all that goes with it.
func (u *user) cycle(ctx context.Context) {
	u.write()
	name := fmt.Sprintf("s%d", u.n)
	_, err := u.v.Snapshot(ctx, name)
	u.must(err)
	u.kept = append(u.kept, taken{name, bytes.Clone(u.data), bytes.Clone(u.log)})
	u.n++
	if u.n%3 == 0 {
		u.browse(u.kept[u.rnd.IntN(len(u.kept))])
	}
	if u.n%5 == 0 && len(u.kept) > 1 {
		u.run("diff", u.v.Mount, u.kept[0].name, name, "--ranges")
	}
	u.thin(1 + u.n%4)
	if u.n%25 == 0 {
		u.run("prune", u.v.Mount)
	}
}

// unlinked opens a file and removes its name. close reads what it holds, and closes it.
func (u *user) unlinked() (close func()) {
	want := rig.WriteFile(u.t, u.path("unlinked"), 5000)
	f, err := os.Open(u.path("unlinked"))
	u.must(err)
	u.must(os.Remove(u.path("unlinked")))
	return func() {
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, want) {
			u.t.Errorf("an unlinked file after the server's death: %d bytes, %v", len(got), err)
		}
		u.must(f.Close())
	}
}

// thin deletes all but the newest snapshots, if that many are too many.
func (u *user) thin(atLeast int) {
	extra := len(u.kept) - keptSnapshots
	if extra < atLeast {
		return
	}
	args := []string{"delete", u.v.Mount}
	for _, s := range u.kept[:extra] {
		args = append(args, s.name)
	}
	u.run(args...)
	u.kept = append([]taken(nil), u.kept[extra:]...)
}

// browse reads a snapshot by way of the mount.
func (u *user) browse(s taken) {
	u.t.Helper()
	dir := u.v.SnapshotDir(s.name)
	_, err := os.ReadDir(dir)
	u.must(err)
	rig.SameFile(u.t, filepath.Join(dir, "data"), s.data)
	rig.SameFile(u.t, filepath.Join(dir, "log"), s.log)
	if u.t.Failed() {
		u.t.Fatalf("snapshot %s isn't what it was", s.name)
	}
}

// measure prunes, so that only what is needed is left, and measures.
func (u *user) measure(before Measure) Measure {
	u.t.Helper()
	u.thin(1)
	u.run("prune", u.v.Mount)
	m, err := Settled(u.t.Context(), u.v, before)
	u.must(err)
	u.t.Logf("%d snapshots: %s", u.n, m)
	return m
}
