package remote

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
)

// moveStep is how many calls lie between two at which TestMoveCut fails one; 1 takes half a minute.
var moveStep = flag.Int64("move.step", 4, "fail every n-th call of a move")

// reopen takes where the remote is from the index, as a new process does.
func (d *disks) reopen() {
	d.t.Helper()
	all, err := List(d.db)
	d.must(err)
	d.cfg.Spec = all[0].Spec
}

// move says where the remote is to be.
func (d *disks) move(layout string, urls []string) {
	d.t.Helper()
	d.must(New(d.cfg).Move(d.t.Context(), layout, urls))
	d.reopen()
}

// arrived demands that nothing is left of a move, and that everything is where it should be.
func (d *disks) arrived(layout string, urls []string) {
	d.t.Helper()
	d.reopen()
	if s := d.cfg.Spec; s.Erasure != layout || !slices.Equal(s.URLs, urls) || len(s.Former) > 0 {
		d.t.Errorf("the remote is %+v, want %s on %q", s, layout, urls)
	}
	all := d.dirs
	defer func() { d.dirs = all }()
	for _, dir := range all {
		d.dirs = []string{dir}
		there := slices.Contains(urls, "dir:"+dir)
		if files := d.files(); there != (len(files) > 0) {
			d.t.Errorf("%s has %q, and is a target: %v", dir, files, there)
		}
		for _, path := range d.files() {
			if base := filepath.Base(path); strings.Contains(base, ".pack.") && !strings.Contains(base, ".pack."+strings.ReplaceAll(layout, "+", "-")+".") {
				d.t.Errorf("%s is of another layout than %s", path, layout)
			}
		}
	}
	d.readable()
}

// urls names the n targets from the i-th on.
func (d *disks) urls(i, n int) (urls []string) {
	for _, dir := range d.dirs[i:][:n] {
		urls = append(urls, "dir:"+dir)
	}
	return urls
}

// spare adds directories that aren't targets yet.
func (d *disks) spare(n int) {
	d.t.Helper()
	for range n {
		dir := filepath.Join(d.t.TempDir(), fmt.Sprint("disk", len(d.dirs)))
		d.must(os.Mkdir(dir, 0o700))
		d.dirs = append(d.dirs, dir)
	}
}

// TestMove: a copy is moved to other layouts and targets, by repairs, or by scrubs and rounds; at each moment everything reads back, and in the end nothing is left of the old one.
func TestMove(t *testing.T) {
	t.Parallel()
	d := newDisks(t, "4+2", 6, true)
	d.spare(3)
	for i, c := range []struct {
		layout string
		urls   []string
	}{{"2+1", d.urls(0, 6)}, {"2+1", d.urls(6, 3)}, {"4+2", d.urls(0, 6)}, {"4+2", d.urls(3, 6)}, {"6+3", d.urls(0, 9)}, {"1+1", d.urls(4, 2)}} {
		d.move(c.layout, c.urls)
		d.snapshot()
		d.sync() // puts what is new to the new targets
		d.readable()
		if found, res := d.scrub(ScrubOptions{Mend: i%2 == 0}); res.Weak == 0 || res.Problems() > 0 && i%2 == 0 || res.Damaged+res.Missing > 0 {
			t.Errorf("%+v: found %v, %+v", c, found, res)
		}
		d.readable()
		if i%2 == 1 {
			d.sync()
			d.scrub(ScrubOptions{})
		}
		d.arrived(c.layout, c.urls)
		d.whole()
	}
	if err := New(d.cfg).Move(t.Context(), "4+2", nil); err == nil || !strings.Contains(err.Error(), "needs 6 targets, and 2 are named") {
		t.Errorf("too few targets: %v", err)
	}
}

// readable demands that everything reads back, whatever a scrub says.
func (d *disks) readable() {
	d.t.Helper()
	d.reopen()
	tg, err := New(d.cfg).Open(d.t.Context())
	d.must(err)
	v, err := OpenView(d.t.Context(), tg)
	d.must(err)
	list, err := d.dir.List(d.t.Context(), "")
	d.must(err)
	for _, in := range list {
		want, err := target.Get(d.t.Context(), d.dir, in.Name, 1<<30)
		d.must(err)
		if got, err := target.Get(d.t.Context(), v, in.Name, 1<<30); err != nil || string(got) != string(want) {
			d.t.Errorf("%s reads back as %d bytes, %v; want %d", in.Name, len(got), err, len(want))
		}
	}
}

// TestMoveCut: the process dies at call 0, 1, 2, … of a move. Everything reads back, and the next process ends the move.
func TestMoveCut(t *testing.T) {
	t.Parallel()
	d := newDisks(t, "1+1", 2, false)
	d.spare(3)
	var left atomic.Int64
	left.Store(1 << 40)
	d.cfg.Opener.Dial = func(ctx context.Context, url string) (target.Target, error) {
		t, err := dial.Open(ctx, url)
		return &maybeAway{Target: t, away: func() bool { return left.Add(-1) < 0 }}, err
	}
	places := []struct {
		layout string
		urls   []string
	}{{"1+1", d.urls(0, 2)}, {"2+1", d.urls(1, 3)}}
	for n, i := rand.Int64N(*moveStep), 1; ; n, i = n+*moveStep, i+1 {
		to := places[i%2]
		d.move(to.layout, to.urls)
		left.Store(n)
		_, err := New(d.cfg).Scrub(t.Context(), ScrubOptions{Mend: true})
		over := left.Load() > 0
		if left.Store(1 << 40); over && err != nil {
			t.Fatalf("%d calls: %v", n, err)
		}
		d.readable()
		if _, err := New(d.cfg).Scrub(t.Context(), ScrubOptions{Mend: true}); err != nil {
			t.Fatalf("after call %d had failed: %v", n, err)
		}
		d.arrived(to.layout, to.urls)
		if t.Failed() {
			t.Fatalf("after call %d had failed", n)
		}
		if over {
			if n < 50 {
				t.Errorf("only %d calls", n)
			}
			return
		}
	}
}

// TestMoveDeclared: who names the copy as it was means the same one.
func TestMoveDeclared(t *testing.T) {
	d := newDisks(t, "1+1", 2, false)
	d.spare(3)
	was := d.cfg.Spec
	d.move("2+1", d.urls(2, 3))
	d.move("", d.urls(1, 3))
	for _, s := range []Spec{was, {URLs: d.urls(2, 3), Erasure: "2+1"}, {URLs: d.urls(1, 3), Erasure: "2+1"}} {
		d.must(Declare(d.db, []Spec{s}))
		all, err := List(d.db)
		if err != nil || len(all) != 1 || !slices.Equal(all[0].Spec.URLs, d.urls(1, 3)) || len(all[0].Spec.Former) != 2 || all[0].Sequence == 0 {
			t.Errorf("declared as %+v: %+v, %v", s, all, err)
		}
	}
	d.must(Declare(d.db, []Spec{{URLs: d.urls(0, 3), Erasure: "2+1"}}))
	if all, err := List(d.db); err != nil || len(all) != 1 || all[0].Sequence != 0 {
		t.Errorf("another one: %+v, %v", all, err)
	}
	single := newDisks(t, "", 1, false)
	if err := New(single.cfg).Move(t.Context(), "1+1", single.urls(0, 1)); err == nil || !strings.Contains(err.Error(), "can't be moved") {
		t.Errorf("a copy on one target: %v", err)
	}
}
