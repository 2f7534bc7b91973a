package probe

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/chunkstore/target/s3/s3test"
)

func dir(t *testing.T) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantEmpty(t *testing.T, tg target.Target) {
	t.Helper()
	if list, err := tg.List(t.Context(), ""); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

func TestWorks(t *testing.T) {
	srv := s3test.Start(t)
	bucket, err := dial.Open(t.Context(), srv.URL("volume"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tg := range []target.Target{dir(t), bucket} {
		steps := Run(t.Context(), tg)
		if len(steps) != 9 || steps[8].Err != nil {
			t.Errorf("%s: %+v", tg, steps)
		}
		wantEmpty(t, tg)
	}
}

// TestLeftBehind: a run removes what one that was killed has left, and nothing else.
func TestLeftBehind(t *testing.T) {
	d := dir(t)
	for _, name := range []string{"probe/1234", "packs/aa/x.pack"} {
		if err := target.Put(t.Context(), d, name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if steps := Run(t.Context(), d); steps[len(steps)-1].Err != nil {
		t.Errorf("%+v", steps)
	}
	list, err := d.List(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Name != "packs/aa/x.pack" {
		t.Errorf("%v, %v", list, err)
	}
}

// lacking is a target that lacks something.
type lacking struct {
	target.Target
	what string
	seen []string // names that were put
}

func (l *lacking) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	l.seen = append(l.seen, name)
	switch l.what {
	case "if absent":
		o.IfAbsent = false
	case "write":
		return target.ErrDenied
	}
	return l.Target.Put(ctx, name, src, o)
}

func (l *lacking) Open(ctx context.Context, name string) (target.Object, error) {
	if l.what == "read" {
		return nil, target.ErrDenied
	}
	o, err := l.Target.Open(ctx, name)
	if err == nil && l.what == "parts" {
		o = shifted{o}
	}
	return o, err
}

func (l *lacking) List(ctx context.Context, prefix string) ([]target.Info, error) {
	switch {
	case l.what == "list":
		return nil, target.ErrDenied
	case l.what == "consistent":
		return nil, nil
	}
	return l.Target.List(ctx, prefix)
}

func (l *lacking) Remove(ctx context.Context, names ...string) error {
	if l.what == "remove" {
		return nil
	}
	return l.Target.Remove(ctx, names...)
}

// shifted gives the beginning of an object whatever is asked for.
type shifted struct{ target.Object }

func (s shifted) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return s.Object.ReadAt(ctx, p, 0)
}

func TestLacks(t *testing.T) {
	for _, c := range []struct {
		what, step, says string
		denied           bool
	}{
		{"list", "list", "", true},
		{"write", "write", "", true},
		{"if absent", "refuse to write what is there", "If-None-Match", false},
		{"read", "read", "", true},
		{"parts", "read a part", "other bytes", false},
		{"consistent", "list what was written", "consistent", false},
		{"remove", "remove", "still there", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := dir(t)
			l := &lacking{Target: d, what: c.what}
			steps := Run(t.Context(), l)
			i := slices.IndexFunc(steps, func(s Step) bool { return s.Err != nil })
			if i != len(steps)-1 || steps[i].Name != c.step || errors.Is(steps[i].Err, target.ErrDenied) != c.denied || !strings.Contains(steps[i].Err.Error(), c.says) {
				t.Errorf("%+v", steps)
			}
			if c.what != "remove" {
				wantEmpty(t, d)
			}
			for _, name := range l.seen {
				if !strings.HasPrefix(name, prefix) {
					t.Errorf("it wrote %s", name)
				}
			}
		})
	}
}
