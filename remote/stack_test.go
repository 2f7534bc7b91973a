package remote

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/chunkstore/target/targettest"
)

// TestStack runs the suite for targets against all that a remote can be made of.
func TestStack(t *testing.T) {
	for _, layout := range []string{"", "1+1", "4+2"} {
		t.Run("layout "+layout, func(t *testing.T) {
			targettest.Run(t, func(t *testing.T) target.Target {
				n := map[string]int{"": 1, "1+1": 2, "4+2": 6}[layout]
				s := Spec{Erasure: layout}
				for i := range n {
					s.URLs = append(s.URLs, fmt.Sprintf("dir:%s/%d", t.TempDir(), i))
				}
				o := &Opener{Dial: dial.Open}
				base, err := o.Base(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				ring, err := crypt.NewKeyring(newID())
				if err != nil {
					t.Fatal(err)
				}
				return crypt.New(base, ring)
			})
		})
	}
}

// TestSpreadRounds: what could not be put on all targets is put later, and counts as degraded until then.
func TestSpreadRounds(t *testing.T) {
	f := newFixture(t)
	away := &awaySet{}
	c := f.config(copyDir(t))
	c.Spec = Spec{Erasure: "2+1", Encrypt: true}
	for i := range 3 {
		c.Spec.URLs = append(c.Spec.URLs, "dir:"+filepath.Join(t.TempDir(), fmt.Sprint(i)))
	}
	c.Opener.Dial = func(ctx context.Context, url string) (target.Target, error) {
		t, err := dial.Open(ctx, url)
		return &maybeAway{Target: t, away: func() bool { return away.has(url) }}, err
	}
	r := New(c)
	sync := func(degraded, repaired bool) {
		t.Helper()
		f.snapshot()
		done, err := r.Sync(t.Context(), Options{})
		if err != nil || (done.Degraded > 0) != degraded || (done.Repaired > 0) != repaired {
			t.Errorf("%+v, %v; want degraded: %v, repaired: %v", done, err, degraded, repaired)
		}
	}
	sync(false, false)
	away.set(c.Spec.URLs[1], true)
	sync(true, false)
	away.set(c.Spec.URLs[1], false)
	r = New(c) // another process, which doesn't leave the target alone for a while
	sync(false, true)
	away.set(c.Spec.URLs[0], true)
	away.set(c.Spec.URLs[2], true)
	f.snapshot()
	if _, err := New(c).Sync(t.Context(), Options{}); err == nil {
		t.Error("two of three targets are away, and it was copied")
	}
}

// awaySet are the URLs of targets that are away.
type awaySet struct{ m sync.Map }

func (a *awaySet) set(url string, away bool) { a.m.Store(url, away) }

func (a *awaySet) has(url string) bool {
	v, _ := a.m.Load(url)
	return v == true
}

// maybeAway is a target that is away now and then.
type maybeAway struct {
	target.Target
	away func() bool
}

func (m *maybeAway) check() error {
	if m.away() {
		return target.ErrUnavailable
	}
	return nil
}

func (m *maybeAway) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := m.check(); err != nil {
		return err
	}
	return m.Target.Put(ctx, name, src, o)
}

func (m *maybeAway) Open(ctx context.Context, name string) (target.Object, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return m.Target.Open(ctx, name)
}

func (m *maybeAway) List(ctx context.Context, prefix string) ([]target.Info, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return m.Target.List(ctx, prefix)
}

func (m *maybeAway) Remove(ctx context.Context, names ...string) error {
	if err := m.check(); err != nil {
		return err
	}
	return m.Target.Remove(ctx, names...)
}
