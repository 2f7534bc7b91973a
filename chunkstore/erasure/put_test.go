package erasure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

// TestPutTooFew: with fewer than k shards a Put fails, says why, and leaves the former object.
func TestPutTooFew(t *testing.T) {
	for _, m := range []mode{unavailable, hangs} {
		fakes := newFakes(6)
		tg := over(t, "4+2", fakes, quick())
		old := random(1, 500<<10)
		mustPut(t, tg, "p", old)
		for _, fk := range fakes[:3] {
			fk.set(m)
		}
		for _, size := range []int{100, 500 << 10} {
			name := "p"
			if size == 100 {
				fakes[3].set(m) // 3 copies would be enough
				name = "short"
			}
			err := target.Put(t.Context(), tg, name, random(2, size))
			if degraded := (*DegradedError)(nil); !errors.Is(err, target.ErrUnavailable) || errors.As(err, &degraded) {
				t.Errorf("%d bytes: %v, want ErrUnavailable", size, err)
			}
			fakes[3].set(works)
		}
		if err := tg.Put(t.Context(), "head", bytes.NewReader(nil), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrUnavailable) {
			t.Errorf("a claim without a majority: %v, want ErrUnavailable", err)
		}
		for _, fk := range fakes {
			fk.set(works)
		}
		tg = over(t, "4+2", fakes, quick())
		wantContent(t, tg, "p", old)
		if infos, err := tg.List(t.Context(), ""); err != nil || len(infos) > 2 || infos[0].Name != "p" {
			t.Errorf("listed %v, %v", infos, err)
		}
	}
}

// TestDegraded: what is missing is named, wraps nothing, and is put by Repair.
func TestDegraded(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	fakes[1].set(unavailable)
	for _, size := range []int{100, 500 << 10} {
		data := random(1, size)
		name := fmt.Sprint(size)
		err := target.Put(t.Context(), tg, name, data)
		degraded := (*DegradedError)(nil)
		if !errors.As(err, &degraded) || len(degraded.Missing) != 1 || degraded.Missing[0].Member != "t1" || errors.Is(err, target.ErrUnavailable) {
			t.Errorf("%v, want one that names t1", err)
		}
		if r, err := tg.Check(t.Context(), name); err != nil || r.Full {
			t.Errorf("check: %+v, %v", r, err)
		}
		if err := tg.Repair(t.Context(), name); !errors.As(err, &degraded) {
			t.Errorf("repair without t1: %v", err)
		}
	}
	fakes[1].set(works)
	for _, name := range []string{"100", "512000"} {
		if err := tg.Repair(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if r, err := tg.Check(t.Context(), name); err != nil || !r.Full {
			t.Errorf("check: %+v, %v", r, err)
		}
	}
}

// TestReplaceDegraded: what a member missed doesn't come back with it.
func TestReplaceDegraded(t *testing.T) {
	for _, layout := range []string{"1+2", "4+2"} {
		for _, sizes := range [][2]int{{100, 200}, {100, 400 << 10}, {400 << 10, 100}, {400 << 10, 400 << 10}} {
			l, _ := ParseLayout(layout)
			fakes := newFakes(l.total())
			tg := over(t, layout, fakes, quick())
			mustPut(t, tg, "p", random(1, sizes[0]))
			for _, fk := range fakes[:2] {
				fk.set(unavailable)
			}
			now := random(2, sizes[1])
			if err := target.Put(t.Context(), tg, "p", now); !errors.As(err, new(*DegradedError)) {
				t.Fatal(err)
			}
			for _, fk := range fakes {
				fk.set(works)
			}
			tg = over(t, layout, fakes, quick())
			wantContent(t, tg, "p", now)
			if infos, err := tg.List(t.Context(), ""); err != nil || len(infos) != 1 || infos[0].Size != int64(len(now)) {
				t.Errorf("%s %v: listed %v, %v", layout, sizes, infos, err)
			}
			if err := tg.Repair(t.Context(), "p"); err != nil {
				t.Fatal(err)
			}
			wantContent(t, tg, "p", now)
			if r, err := tg.Check(t.Context(), "p"); err != nil || !r.Full || r.Stray != 0 {
				t.Errorf("%s %v: %+v, %v", layout, sizes, r, err)
			}
		}
	}
}

// TestClaims: of many who claim a name through targets of their own, while members fail, at most one succeeds; and what it has put is read.
func TestClaims(t *testing.T) {
	for round := range 30 {
		fakes := newFakes(5)
		var wg sync.WaitGroup
		var won atomic.Int64
		for i := range 4 {
			tg := over(t, "3+2", fakes, quick())
			wg.Go(func() {
				if i == round%4 { // one sees other members fail than the rest
					tg.members[round%5].suspect.Store(time.Now().Add(time.Hour).UnixNano())
					tg.members[round%5].Target = refuses{tg.members[round%5].Target}
				}
				err := tg.Put(t.Context(), "head", bytes.NewReader([]byte{byte(i + 1)}), target.PutOptions{IfAbsent: true})
				switch {
				case err == nil || errors.As(err, new(*DegradedError)):
					if !won.CompareAndSwap(0, int64(i+1)) {
						t.Errorf("round %d: two have succeeded", round)
					}
				case !errors.Is(err, target.ErrExists) && !errors.Is(err, target.ErrUnavailable):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() > 0 {
			wantContent(t, over(t, "3+2", fakes, quick()), "head", []byte{byte(won.Load())})
		}
	}
}

// refuses is a target that can't be written.
type refuses struct{ target.Target }

func (refuses) Put(context.Context, string, target.Source, target.PutOptions) error {
	return target.ErrUnavailable
}

// TestClaimOfTheDead: a claim that a crash has left on the first member is there for all, and a majority beats it.
func TestClaimOfTheDead(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	h := newHeader("head", version{Layout{1, 0}, 4, 77}, 0, kindClaim)
	first := fakes[order(tg.ids, "head")[0]]
	first.restore(map[string][]byte{"head": file(t, "head", h, []byte("dead"))})
	if err := tg.Put(t.Context(), "head", strings.NewReader("new"), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	wantContent(t, tg, "head", []byte("dead"))
	first.set(unavailable)
	if err := tg.Put(t.Context(), "head", strings.NewReader("new"), target.PutOptions{IfAbsent: true}); !errors.As(err, new(*DegradedError)) {
		t.Error(err)
	}
	first.set(works)
	tg = over(t, "4+2", fakes, quick())
	wantContent(t, tg, "head", []byte("new"))
	if err := tg.Repair(t.Context(), "head"); err != nil {
		t.Fatal(err)
	}
	if r, err := tg.Check(t.Context(), "head"); err != nil || !r.Full {
		t.Errorf("%+v, %v", r, err)
	}
}

// deaf hangs and doesn't notice when its context ends, as a disk may.
type deaf struct {
	target.Target
	release chan struct{}
}

func (d deaf) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	p := make([]byte, 1000)
	if _, err := src.ReadAt(p, 0); err != nil {
		return err
	}
	<-d.release
	_, err := src.ReadAt(p, 0)
	return err
}

// TestDeaf: after Put nobody reads the source any more, also not a member that hangs.
func TestDeaf(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	release := make(chan struct{})
	tg.members[2].Target = deaf{fakes[2], release}
	src := &counted{data: random(1, 500<<10)}
	if err := tg.Put(t.Context(), "p", src, target.PutOptions{}); !errors.As(err, new(*DegradedError)) {
		t.Fatal(err)
	}
	src.closed.Store(true)
	close(release)
	wantContent(t, tg, "p", src.data)
	time.Sleep(20 * time.Millisecond)
	if src.late.Load() {
		t.Error("the source was read after Put had returned")
	}
}

// counted is a source that counts the bytes read.
type counted struct {
	data   []byte
	read   atomic.Int64
	closed atomic.Bool
	late   atomic.Bool
}

func (c *counted) Size() int64 { return int64(len(c.data)) }
func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	if c.closed.Load() {
		c.late.Store(true)
	}
	n, err := bytes.NewReader(c.data).ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

// TestSourceReadOnce: the object is read once, not once for each parity shard.
func TestSourceReadOnce(t *testing.T) {
	tg := over(t, "4+2", newFakes(6), Options{})
	tg.pace = time.Hour // a busy machine leaves none behind
	src := &counted{data: random(1, 40<<20)}
	if err := tg.Put(t.Context(), "p", src, target.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := src.read.Load(); n > int64(len(src.data))*5/4 {
		t.Errorf("%d bytes of the source were read, it has %d", n, len(src.data))
	}
	wantContent(t, tg, "p", src.data)
}

// TestShardSource: a shard reads the same from any offset, in any order, from several goroutines.
func TestShardSource(t *testing.T) {
	v := version{Layout{3, 2}, 9<<20 + 5, 1}
	data := random(5, int(v.length))
	h := newHeader("p", v, 0, kindShard)
	tg := over(t, "3+2", newFakes(5), Options{})
	codec, err := tg.codec(v.Layout)
	if err != nil {
		t.Fatal(err)
	}
	s := newStripes(h, codec, 5, fromSource(bytes.NewReader(data), h.body), defaultPace)
	var wg sync.WaitGroup
	for i := range 5 {
		h := newHeader("p", v, i, kindShard)
		want := file(t, "p", h, data)
		src := newShardSource(s, i, h)
		wg.Go(func() {
			for _, off := range []int64{int64(len(want)) - 7, 3 << 20, 0, headerLen - 1, 1 << 20, headerLen + h.body - 3} {
				p := make([]byte, 1<<20)
				n, err := src.ReadAt(p, off)
				if !bytes.Equal(p[:n], want[off:min(off+1<<20, int64(len(want)))]) || (n < len(p)) != errors.Is(err, io.EOF) {
					t.Errorf("shard %d at %d: %d bytes, %v", i, off, n, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCancel: a Put ends with its context, whatever members do.
func TestCancel(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, Options{StallAfter: time.Hour})
	for _, fk := range fakes {
		fk.set(hangs)
	}
	for name, call := range map[string]func(context.Context) error{
		"put":    func(ctx context.Context) error { return target.Put(ctx, tg, "p", random(1, 300<<10)) },
		"open":   func(ctx context.Context) error { _, err := tg.Open(ctx, "p"); return err },
		"list":   func(ctx context.Context) error { _, err := tg.List(ctx, ""); return err },
		"remove": func(ctx context.Context) error { return tg.Remove(ctx, "p") },
		"repair": func(ctx context.Context) error { return tg.Repair(ctx, "p") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// TestRemoveUnavailable: what could not be removed is reported, the rest is gone.
func TestRemoveUnavailable(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	mustPut(t, tg, "p", random(1, 300<<10))
	mustPut(t, tg, "q", random(1, 100))
	fakes[4].set(unavailable)
	if err := tg.Remove(t.Context(), "p", "q"); !errors.Is(err, target.ErrUnavailable) || !strings.Contains(err.Error(), "t4") {
		t.Errorf("%v, want one that names t4", err)
	}
	for i, fk := range fakes {
		if n := len(fk.content()); (n > 0) != (i == 4) {
			t.Errorf("%s has %d files", fk, n)
		}
	}
	fakes[4].set(works)
	if infos, err := tg.List(t.Context(), ""); err != nil || len(infos) != 1 {
		t.Errorf("listed %v, %v", infos, err) // one copy is as good as all
	}
	if names, err := tg.Incomplete(t.Context(), ""); err != nil || !slices.Equal(names, []string{"p"}) {
		t.Errorf("incomplete: %v, %v", names, err)
	}
	if err := tg.Remove(t.Context(), "p", "q"); err != nil || len(fakes[4].content()) > 0 {
		t.Errorf("%v, %d files are left", err, len(fakes[4].content()))
	}
}
