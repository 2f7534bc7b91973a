package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
)

func (f *fixture) sync(t target.Target, o Options) error {
	_, err := New(f.config(t)).Sync(f.t.Context(), o)
	return err
}

// wants demands an error of a class that says all the words.
func wants(t *testing.T, err, class error, words ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%v, want %v", err, class)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in: %v", w, err)
		}
	}
}

// TestTaken: two state directories of one volume don't write to one remote without noticing, and the takeover by one is noticed by the other.
func TestTaken(t *testing.T) {
	a, b, copied := newFixture(t), newFixture(t), copyDir(t)
	a.snapshot()
	a.must(a.sync(copied, Options{}))
	b.n = 100 // other content
	b.snapshot()
	wants(t, b.sync(copied, Options{}), ErrTaken, "writer", "--take-over")
	a.same(copied)
	b.must(b.sync(copied, Options{TakeOver: true}))
	b.check(copied)
	a.snapshot()
	wants(t, a.sync(copied, Options{}), ErrTaken, "writer", "--take-over")
	b.snapshot()
	b.must(b.sync(copied, Options{}))
	b.same(copied)
	// Both at once, each sure that it is alone.
	ra, rb := New(a.config(copied)), New(b.config(copied))
	_, err := ra.Sync(t.Context(), Options{TakeOver: true})
	a.must(err)
	_, err = rb.Sync(t.Context(), Options{TakeOver: true})
	b.must(err)
	a.snapshot()
	_, err = ra.Sync(t.Context(), Options{})
	wants(t, err, ErrTaken)
	_, err = ra.Sync(t.Context(), Options{})
	wants(t, err, ErrTaken, "--take-over")
}

// TestForgotten: a remote that is declared again, after it was forgotten, goes on.
func TestForgotten(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	f.must(f.sync(copied, Options{}))
	f.must(f.db.DropRemote("r1"))
	f.snapshot()
	done, err := New(f.config(copied)).Sync(t.Context(), Options{})
	f.must(err)
	if done.Packs != 3 {
		t.Errorf("%d packs were put, want 3", done.Packs)
	}
	f.same(copied)
}

func TestChanged(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	r := New(f.config(copied))
	for range 3 {
		f.snapshot()
		_, err := r.Sync(t.Context(), Options{})
		f.must(err)
	}
	heads, err := copied.List(t.Context(), headPrefix)
	f.must(err)
	if len(heads) != keptHeads {
		t.Errorf("heads: %v", heads)
	}
	newest := heads[len(heads)-1].Name
	kept, err := os.ReadFile(filepath.Join(copied.String(), newest))
	f.must(err)
	f.must(os.WriteFile(filepath.Join(copied.String(), newest), []byte(strings.Replace(string(kept), `"sequence":3`, `"sequence":3 `, 1)), 0o600))
	wants(t, f.sync(copied, Options{}), ErrChanged, "head 3")
	f.must(copied.Remove(t.Context(), newest))
	f.snapshot()
	_, err = r.Sync(t.Context(), Options{})
	wants(t, err, ErrChanged, "head 3")
	wants(t, f.sync(copied, Options{}), ErrChanged, "number 2", "number 3", "--take-over")
	packs, err := copied.List(t.Context(), "packs/")
	f.must(err)
	f.must(copied.Remove(t.Context(), packs[0].Name, packs[1].Name))
	f.must(f.sync(copied, Options{TakeOver: true})) // puts again what is gone
	f.same(copied)
}

func TestForeign(t *testing.T) {
	f := newFixture(t)
	f.snapshot()
	full := copyDir(t)
	f.must(target.Put(t.Context(), full, "holiday.jpg", []byte("x")))
	wants(t, f.sync(full, Options{}), ErrForeign, "empty directory")
	other, copied := newFixture(t), copyDir(t)
	c := other.config(copied)
	c.Local.Volume = "another"
	_, err := New(c).Sync(t.Context(), Options{})
	other.must(err)
	wants(t, f.sync(copied, Options{}), ErrForeign, "another")
	for name, content := range map[string]string{"no JSON": "x", "no store": `{"format_version":1}`} {
		broken := copyDir(t)
		f.must(target.Put(t.Context(), broken, storeName, []byte(content)))
		if err := f.sync(broken, Options{}); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := copyDir(t)
	f.must(target.Put(t.Context(), newer, storeName, []byte(`{"format_version":2,"store":"x","volume":"v"}`)))
	wants(t, f.sync(newer, Options{}), ErrNewerFormat)
	f.must(f.sync(copyDir(t), Options{TakeOver: true})) // an empty one, in place of the one that the index knows
}

func TestDeclare(t *testing.T) {
	db := newFixture(t).db
	a, b := Spec{URLs: []string{"dir:/a"}}, Spec{URLs: []string{"dir:/b", "dir:/c"}, Erasure: "1+1", Encrypt: true}
	for i, c := range []struct {
		specs []Spec
		want  string
	}{
		{nil, "[]"},
		{[]Spec{a, b}, "[r1 r2]"},
		{[]Spec{b, a}, "[r1 r2]"},
		{[]Spec{b}, "[r2]"},
		{[]Spec{b, a}, "[r1 r2]"},
		{nil, "[]"},
	} {
		if err := Declare(db, c.specs); err != nil {
			t.Fatal(err)
		}
		all, err := List(db)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, d := range all {
			names = append(names, d.Name)
		}
		if fmt.Sprint(names) != c.want {
			t.Errorf("%d: %v, want %s", i, names, c.want)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(`{"format_version":1,"store":"s","writer":"w","sequence":1,"snapshots":[{"id":"x","manifest_sha256":"y"}]}`))
	f.Add([]byte(`{"sequence":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		d, err := target.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Put(context.Background(), d, headName(1), p); err != nil {
			t.Fatal(err)
		}
		r := &Remote{target: d}
		if at, h, err := r.newestHead(context.Background()); err == nil && (at.Sequence != 1 || h.Sequence != 1 || h.FormatVersion > HeadVersion) {
			t.Errorf("%+v, %+v", at, h)
		}
	})
}
