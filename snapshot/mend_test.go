package snapshot

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
)

// copyOf copies a store as it is.
func copyOf(t *testing.T, r *Repo) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{chunkstore.PackPrefix, ManifestPrefix} {
		list, err := r.target.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range list {
			p, err := target.Get(t.Context(), r.target, in.Name, 1<<30)
			if err == nil {
				err = target.Put(t.Context(), d, in.Name, p)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

// hurt damages, cuts or removes an object, by turns.
func hurt(t *testing.T, dir, name string, how int) {
	t.Helper()
	path := filepath.Join(dir, name)
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch how % 4 {
	case 0:
		p[len(p)/2] ^= 1
	case 1:
		p[len(p)-1] ^= 1
	case 2:
		p = p[:len(p)/3]
	case 3:
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func copies(dirs ...*target.Dir) (all []Copy) {
	for _, d := range dirs {
		all = append(all, Copy{Name: d.String(), Open: func(context.Context) (target.Target, error) { return d, nil }})
	}
	return all
}

// TestMend: whatever is damaged or missing in the store is put back from the copies, of which none is whole, and everything reads back.
func TestMend(t *testing.T) {
	r := newRepo(t)
	h := newHistory(t, r, 1, 5)
	one, two := copyOf(t, r), copyOf(t, r)
	list, err := r.target.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, in := range list {
		if i%2 == 0 {
			hurt(t, r.target.String(), in.Name, i/2)
			hurt(t, []*target.Dir{one, two}[i/2%2].String(), in.Name, i/4)
		}
	}
	var from []string
	res, err := r.Mend(t.Context(), MendOptions{Copies: copies(one, two), Report: func(m Mended) {
		if m.Err != nil {
			t.Errorf("%s: %v", m.Object, m.Err)
		}
		from = append(from, m.From)
	}})
	if err != nil || res.Mended != (len(list)+1)/2 || len(res.Lost) > 0 {
		t.Errorf("%+v, %v; %d objects were hurt", res, err, (len(list)+1)/2)
	}
	if !slices.Contains(from, one.String()) || !slices.Contains(from, two.String()) {
		t.Errorf("all came from one copy: %q", from)
	}
	checkWhole(t, r)
	h.check(t, r)
	if res, err := r.Mend(t.Context(), MendOptions{}); err != nil || res.Mended > 0 {
		t.Errorf("once more: %+v, %v", res, err)
	}
}

// TestMendLost: what is damaged everywhere is named, with the snapshots that need it, and is left as it is.
func TestMendLost(t *testing.T) {
	for name, how := range map[string]int{"cut": 2, "gone": 3} {
		t.Run(name, func(t *testing.T) { testMendLost(t, how) })
	}
}

func testMendLost(t *testing.T, how int) {
	r := newRepo(t)
	newHistory(t, r, 2, 3)
	packs, err := r.store.Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := copyOf(t, r)
	bad := packs[0].ID
	for _, dir := range []string{r.target.String(), one.String()} {
		hurt(t, dir, bad.Object(), how)
	}
	before, _ := os.ReadFile(filepath.Join(r.target.String(), bad.Object()))
	away := Copy{Name: "away", Open: func(context.Context) (target.Target, error) { return nil, target.ErrUnavailable }}
	var reported []Mended
	report := func(m Mended) { reported = append(reported, m) }
	res, err := r.Mend(t.Context(), MendOptions{Copies: append(copies(one), away), Report: report})
	if err != nil || res.Mended != 0 || len(res.Lost) > 0 || reported[0].Lost() || !errors.Is(reported[0].Err, target.ErrUnavailable) {
		t.Errorf("a copy that is away may have it: %+v, %v, %+v", res, err, reported)
	}
	reported = nil
	res, err = r.Mend(t.Context(), MendOptions{Copies: copies(one), Report: report})
	if err != nil || res.Mended != 0 || !slices.Equal(slices.Collect(maps.Keys(res.Lost)), []chunkstore.PackID{bad}) {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(reported) != 1 || reported[0].Object != bad.Object() || !reported[0].Lost() ||
		how == 2 && !strings.Contains(reported[0].Err.Error(), one.String()) {
		t.Errorf("reported %+v", reported)
	}
	if after, _ := os.ReadFile(filepath.Join(r.target.String(), bad.Object())); string(after) != string(before) {
		t.Error("the damaged pack was changed")
	}
	var got, want []string
	err = r.Needs(t.Context(), res.Lost, func(p Problem) { got = append(got, p.Snapshot+" "+p.Path) })
	if err != nil {
		t.Fatal(err)
	}
	problems, _, err := verifyAll(t.Context(), r, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Snapshot != "" { // else it is of the pack itself
			want = append(want, p.Snapshot+" "+p.Path)
		}
	}
	if len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("needed by %q, verify says %q", got, want)
	}
}

// TestMendPartly: a store that never had all packs doesn't miss them.
func TestMendPartly(t *testing.T) {
	r := newRepo(t)
	newHistory(t, r, 3, 3)
	packs, err := r.store.Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := copyOf(t, r)
	hurt(t, r.target.String(), packs[0].ID.Object(), 3)
	hurt(t, r.target.String(), packs[1].ID.Object(), 0)
	res, err := r.Mend(t.Context(), MendOptions{Copies: copies(one), Partly: true})
	if err != nil || res.Mended != 1 || res.Objects != int64(len(packs)-1+3) {
		t.Errorf("%+v, %v; of %d packs one isn't here", res, err, len(packs))
	}
}

// TestMendFullDisk: what can't be put back isn't lost, and the reason is told.
func TestMendFullDisk(t *testing.T) {
	r := newRepo(t)
	newHistory(t, r, 4, 2)
	packs, err := r.store.Packs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := copyOf(t, r)
	hurt(t, r.target.String(), packs[0].ID.Object(), 2)
	tmp := filepath.Join(r.target.String(), ".tmp")
	if err := os.RemoveAll(tmp); err != nil { // nothing can be stored without it
		t.Fatal(err)
	}
	res, err := r.Mend(t.Context(), MendOptions{Copies: copies(one), Report: func(m Mended) { t.Errorf("reported %+v", m) }})
	if !errors.Is(err, errPutBack) || !errors.Is(err, os.ErrNotExist) || len(res.Lost) > 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	if res, err := r.Mend(t.Context(), MendOptions{Copies: copies(one)}); err != nil || res.Mended != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}
