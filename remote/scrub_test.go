package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/snapshot"
)

// disks are directories that a remote is on, and what it is made of.
type disks struct {
	*fixture
	dirs []string
	cfg  Config
}

// spread gives a fixture with a snapshot whose pack is in shards, and a remote with it: on one directory if the layout is empty.
func newDisks(t *testing.T, layout string, n int, encrypt bool) *disks {
	t.Helper()
	d := &disks{fixture: newFixtureOf(t, 50_000, 4<<20)}
	d.snapshot()
	d.cfg = d.config(copyDir(t))
	d.cfg.Spec = Spec{Erasure: layout, Encrypt: encrypt}
	d.cfg.Opener.Dial, d.cfg.Opener.hedge = dial.Open, time.Minute // however slow the machine is, all targets count
	for i := range n {
		d.dirs = append(d.dirs, filepath.Join(t.TempDir(), fmt.Sprint("disk", i)))
		d.cfg.Spec.URLs = append(d.cfg.Spec.URLs, "dir:"+d.dirs[i])
	}
	d.must(writeState(d.db, d.cfg.Name, &state{Spec: d.cfg.Spec}))
	d.sync()
	return d
}

// sync does a round of a process of its own.
func (d *disks) sync() {
	d.t.Helper()
	if _, err := New(d.cfg).Sync(d.t.Context(), Options{}); err != nil {
		d.t.Fatal(err)
	}
}

// scrub does one, and gives what it found: trouble by object, with "mended" or "lost" after it.
func (d *disks) scrub(o ScrubOptions) (found map[string]string, res Scrubbed) {
	d.t.Helper()
	found = map[string]string{}
	o.Found = func(f Finding) {
		s := string(f.Trouble)
		if f.Mended {
			s += " mended"
		}
		if f.Lost {
			s += " lost"
		}
		if f.Err == nil {
			d.t.Errorf("%s is %s, and nothing says why", f.Object, s)
		}
		found[f.Object] = s
	}
	res, err := New(d.cfg).Scrub(d.t.Context(), o)
	if err != nil {
		d.t.Fatal(err)
	}
	return found, res
}

// parts lists the files of an object, by disk.
func (d *disks) parts(name string) (paths []string) {
	d.t.Helper()
	for _, dir := range d.dirs {
		all, err := filepath.Glob(filepath.Join(dir, name) + "*")
		d.must(err)
		paths = append(paths, all...)
	}
	return paths
}

// files lists all files on the disks.
func (d *disks) files() (paths []string) {
	d.t.Helper()
	for _, dir := range d.dirs {
		d.must(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				paths = append(paths, path)
			}
			return err
		}))
	}
	return paths
}

func (d *disks) pack() string {
	d.t.Helper()
	ids, err := d.db.PackIDs()
	d.must(err)
	return ids[0].Object()
}

// spoil removes a file, or flips a bit in it.
func (d *disks) spoil(path string, remove bool) {
	d.t.Helper()
	if remove {
		d.must(os.Remove(path))
		return
	}
	p, err := os.ReadFile(path)
	d.must(err)
	p[len(p)/4] ^= 4 // of the last data shard only the beginning is needed
	d.must(os.WriteFile(path, p, 0o600))
}

// whole demands that a scrub finds nothing, and that everything reads back.
func (d *disks) whole() {
	d.t.Helper()
	if found, res := d.scrub(ScrubOptions{}); len(found) > 0 || res.Objects < 4 || res.Bytes == 0 {
		d.t.Errorf("found %v, %+v", found, res)
	}
	tg, err := New(d.cfg).cfg.Opener.Open(d.t.Context(), d.cfg.Name, d.cfg.Spec)
	d.must(err)
	v, err := OpenView(d.t.Context(), tg)
	d.must(err)
	if v.Newest.Snapshots != len(d.want) {
		d.t.Errorf("the head lists %d snapshots, want %d", v.Newest.Snapshots, len(d.want))
	}
	for _, name := range []string{"packs/", "manifests/"} {
		here, err := d.dir.List(d.t.Context(), name)
		d.must(err)
		for _, in := range here {
			want, err := target.Get(d.t.Context(), d.dir, in.Name, 1<<30)
			d.must(err)
			if got, err := target.Get(d.t.Context(), v, in.Name, 1<<30); err != nil || string(got) != string(want) {
				d.t.Errorf("%s reads back as %d bytes, %v; want %d", in.Name, len(got), err, len(want))
			}
		}
	}
}

// What can become of a shard.
const (
	fine = iota
	lost
	damaged
)

// combinations lists every choice of up to m of n shards, at least one, each lost or damaged.
func combinations(n, m int) (all [][]int) {
	var choose func(so []int, left int)
	choose = func(so []int, left int) {
		if len(so) == n {
			if left < m {
				all = append(all, slices.Clone(so))
			}
			return
		}
		choose(append(so, fine), left)
		if left > 0 {
			choose(append(so, lost), left-1)
			choose(append(so, damaged), left-1)
		}
	}
	choose(nil, m)
	return all
}

// TestScrubShards: every combination of up to m lost and damaged shards, each of another pack, can be read, is found, and is mended: at once, or by the next round
// after it was noted.
func TestScrubShards(t *testing.T) {
	t.Parallel()
	d := newDisks(t, "4+2", 6, true)
	for range 11 {
		d.snapshot()
	}
	d.sync()
	ids, err := d.db.PackIDs()
	d.must(err)
	before := map[string]string{}
	for _, id := range ids {
		shards := d.parts(id.Object())
		if len(shards) != 6 {
			t.Fatalf("%d shards: %q", len(shards), shards)
		}
		for _, path := range shards {
			p, err := os.ReadFile(path)
			d.must(err)
			before[path] = string(p)
		}
	}
	all, n := combinations(6, 2), 0
	for ; len(all) > 0; n++ {
		want := map[string]string{}
		for _, id := range ids[:min(len(ids), len(all))] {
			shards := d.parts(id.Object())
			for i, path := range shards {
				if how := all[0][i]; how != fine {
					d.spoil(path, how == lost)
				}
			}
			all = all[1:]
			want[id.Object()] = []string{"weak", "weak mended"}[n%2]
		}
		d.readable()
		if found, res := d.scrub(ScrubOptions{Mend: n%2 == 1}); !maps.Equal(found, want) || (res.Problems() == 0) != (n%2 == 1) {
			t.Errorf("round %d: found %v, want %v; %+v", n, found, want, res)
		}
		if n%2 == 0 {
			d.sync()
		}
		for path, want := range before {
			if p, err := os.ReadFile(path); err != nil || string(p) != want {
				t.Errorf("round %d: %s isn't what it was (%v)", n, path, err)
			}
		}
	}
	if n != 6 {
		t.Errorf("%d rounds of 12", n)
	}
	d.whole()
}

// TestScrubBeyondParity: of an object that has lost too much it is told what, and it is put again from the store; if that doesn't have it either, the snapshots that need it
// are named.
func TestScrubBeyondParity(t *testing.T) {
	d := newDisks(t, "4+2", 6, false)
	name := d.pack()
	for i, o := range []ScrubOptions{{}, {Mend: true}} {
		shards := d.parts(name)
		d.spoil(shards[i], true)
		d.spoil(shards[2], false)
		d.spoil(shards[5], false)
		want := "damaged"
		if o.Mend {
			want += " mended"
		}
		if found, _ := d.scrub(o); found[name] != want || len(found) != 1 {
			t.Errorf("found %v, want %s", found, want)
		}
		d.sync()
		d.whole()
	}
	for _, path := range d.parts(name)[1:4] {
		d.spoil(path, true)
	}
	d.flip(name)
	var needed []string
	for _, o := range []ScrubOptions{{}, {Mend: true}, {}} { // it stays lost
		o.Lost = func(p snapshot.Problem) { needed = append(needed, p.Snapshot) }
		if found, res := d.scrub(o); found[name] != "damaged lost" || res.Lost != 1 {
			t.Errorf("found %v, %+v", found, res)
		}
	}
	if id := d.complete()[0]; !slices.Equal(needed, []string{id, id, id}) {
		t.Errorf("needed by %q, want %s", needed, id)
	}
}

// TestScrubSays: the words of a finding name object, shard and target.
func TestScrubSays(t *testing.T) {
	d := newDisks(t, "2+1", 3, false)
	shards := d.parts(d.pack())
	d.spoil(shards[0], true)
	var words []string
	look := func() {
		_, err := New(d.cfg).Scrub(t.Context(), ScrubOptions{Found: func(f Finding) { words = append(words, f.Object+": "+f.Err.Error()) }})
		d.must(err)
	}
	look()
	d.spoil(shards[1], true)
	d.flip(d.pack())
	look()
	for i, want := range [][]string{{d.pack(), "shard", d.dirs[0], "not exist"}, {d.pack(), "2 of its 3 shards", d.dirs[0], d.dirs[1]}} {
		for _, w := range want {
			if !strings.Contains(words[i], w) {
				t.Errorf("no %q in: %s", w, words[i])
			}
		}
	}
}

// TestScrubSingle: on a copy in one directory each file is removed and damaged in turn. That is found; what the store has is put again, a head and store.json are
// written anew, and of the key it is told.
func TestScrubSingle(t *testing.T) {
	t.Parallel()
	for _, encrypt := range []bool{false, true} {
		d := newDisks(t, "", 1, encrypt)
		d.snapshot()
		d.sync()
		for _, remove := range []bool{false, true} {
			for _, path := range d.files() {
				name := strings.TrimPrefix(path, d.dirs[0]+"/")
				before, err := os.ReadFile(path)
				d.must(err)
				if name == headName(1) && remove {
					continue // nothing needs it
				}
				d.spoil(path, remove)
				if strings.HasPrefix(name, "keys/") {
					if _, err := New(d.cfg).Scrub(t.Context(), ScrubOptions{}); err == nil {
						t.Errorf("encrypted, %s removed: %v; nothing is said", name, remove)
					}
					d.must(os.WriteFile(path, before, 0o600))
					continue
				}
				want := map[bool]string{false: "damaged", true: "missing"}[remove]
				if found, _ := d.scrub(ScrubOptions{}); found[name] != want || len(found) != 1 {
					t.Errorf("encrypted: %v, %s: found %v, want it %s", encrypt, name, found, want)
				}
				if rowed(name) { // noted: the round mends it
					d.sync()
					d.whole()
					d.spoil(path, remove)
				}
				if want += " mended"; remove && strings.HasPrefix(name, "heads/") {
					want = "missing" // somebody has taken it away
				}
				if found, _ := d.scrub(ScrubOptions{Mend: true}); found[name] != want || len(found) != 1 {
					t.Errorf("encrypted: %v, %s: found %v, want it %s", encrypt, name, found, want)
				}
				if strings.HasPrefix(name, "heads/") && remove {
					_, err := New(d.cfg).Sync(t.Context(), Options{TakeOver: true})
					d.must(err)
				}
				d.sync()
				d.whole()
			}
		}
	}
}

// TestScrubAway: of targets that don't answer it is told, and what they should have isn't taken for lost.
func TestScrubAway(t *testing.T) {
	d := newDisks(t, "4+2", 6, false)
	away := &awaySet{}
	d.cfg.Opener.Dial = func(ctx context.Context, url string) (target.Target, error) {
		t, err := dial.Open(ctx, url)
		return &maybeAway{Target: t, away: func() bool { return away.has(url) }}, err
	}
	away.set(d.cfg.Spec.URLs[2], true)
	if found, res := d.scrub(ScrubOptions{}); len(found) > 0 || !slices.Equal(res.Away, []string{d.cfg.Spec.URLs[2]}) {
		t.Errorf("found %v, away %q", found, res.Away)
	}
	away.set(d.cfg.Spec.URLs[3], true)
	away.set(d.cfg.Spec.URLs[4], true)
	if _, err := New(d.cfg).Scrub(t.Context(), ScrubOptions{}); !errors.Is(err, target.ErrUnavailable) {
		t.Errorf("three of six are away: %v", err)
	}
}

// TestScrubBesideRounds: what a round removes or replaces while a scrub runs is nothing wrong.
func TestScrubBesideRounds(t *testing.T) {
	for _, layout := range []string{"", "2+1"} {
		for _, mend := range []bool{false, true} {
			d := newDisks(t, layout, map[string]int{"": 1, "2+1": 3}[layout], false)
			d.snapshot()
			d.sync() // two heads, of which the scrub sees the first before they go
			r := New(d.cfg)
			meddled := false
			_, err := r.Scrub(t.Context(), ScrubOptions{Mend: mend, Found: func(f Finding) { t.Errorf("%+v", f) }, Progress: func(int64, int64) {
				if meddled {
					return
				}
				meddled = true
				for range 3 { // heads come and go, too
					d.snapshot()
					d.prune()
					if _, err := r.Sync(t.Context(), Options{}); err != nil {
						t.Error(err)
					}
				}
			}})
			if err != nil || !meddled {
				t.Errorf("%v, %v", meddled, err)
			}
			d.whole()
		}
	}
}

// TestScrubStray: what the index doesn't know is found, and removed by rounds if nothing needs it.
func TestScrubStray(t *testing.T) {
	for _, layout := range []string{"", "2+1"} {
		d := newDisks(t, layout, map[string]int{"": 1, "2+1": 3}[layout], false)
		old := d.pack()
		d.must(d.db.SetRemoteObjects(d.cfg.Name, nil, []string{old}))
		d.prune()
		d.sync()
		if len(d.parts(old)) == 0 {
			t.Fatal("the round removed what it doesn't know of")
		}
		if found, _ := d.scrub(ScrubOptions{}); len(found) > 0 {
			t.Errorf("found %v", found)
		}
		d.sync()
		if left := d.parts(old); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		d.whole()
	}
}
