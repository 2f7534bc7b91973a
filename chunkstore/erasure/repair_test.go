package erasure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

// TestRepairFiles: each file that is lost or damaged comes back as it was, also two at once.
func TestRepairFiles(t *testing.T) {
	for _, layout := range []string{"1+2", "2+1", "10+3"} {
		f := newField(t, layout, 13)
		l := f.tg.layout
		for i := range 13 {
			for j := range min(l.Parity, 2) {
				faults()[(i+j)%3].hurt(f.fakes[(i+j)%13])
			}
			f.checkReads(t)
			f.checkRepair(t)
			f.heal()
		}
	}
}

// TestRepairLayout: objects of another layout are read, and Repair moves them.
func TestRepairLayout(t *testing.T) {
	fakes := newFakes(9)
	objects := map[string][]byte{"long": random(1, 3<<20), "short": random(2, 100), "head": random(3, 300<<10)}
	before := over(t, "2+1", fakes[:3], quick())
	mustPut(t, before, "long", objects["long"])
	mustPut(t, before, "short", objects["short"])
	if err := before.Put(t.Context(), "head", bytes.NewReader(objects["head"]), target.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{"4+2", "6+3", "1+2", "3+0"} {
		now := over(t, layout, fakes, quick())
		for name, data := range objects {
			wantContent(t, now, name, data)
			r, err := now.Check(t.Context(), name)
			if err != nil || r.Full {
				if name == "long" || layout == "4+2" {
					t.Errorf("%s before repair: %+v, %v", name, r, err)
				}
			}
			if err := now.Repair(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			wantContent(t, now, name, data)
			if r, err = now.Check(t.Context(), name); err != nil || !r.Full || name == "long" && (r.Layout != now.layout || len(r.Parts) != now.layout.total()) {
				t.Errorf("%s after repair: %+v, %v", name, r, err)
			}
		}
		if infos, err := now.List(t.Context(), ""); err != nil || len(infos) != 3 {
			t.Errorf("listed %v, %v", infos, err)
		}
	}
}

// TestRepairLayoutDegraded: the former layout stays while the new one isn't whole.
func TestRepairLayoutDegraded(t *testing.T) {
	fakes := newFakes(6)
	data := random(1, 3<<20)
	mustPut(t, over(t, "2+1", fakes, quick()), "p", data)
	before := 0
	for _, fk := range fakes {
		before += len(fk.content())
	}
	fakes[5].set(unavailable)
	now := over(t, "4+2", fakes, quick())
	if err := now.Repair(t.Context(), "p"); !errors.As(err, new(*DegradedError)) {
		t.Errorf("%v, want a DegradedError", err)
	}
	after := 0
	for _, fk := range fakes {
		after += len(fk.content())
	}
	if after != before+5 {
		t.Errorf("%d files, want the %d before and 5", after, before)
	}
	fakes[5].set(works)
	wantContent(t, now, "p", data)
	if err := now.Repair(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if r, err := now.Check(t.Context(), "p"); err != nil || !r.Full {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestMembersAdded: shards are read where they are, and moved by Repair.
func TestMembersAdded(t *testing.T) {
	fakes := newFakes(9)
	old := over(t, "4+2", fakes[:6], quick())
	data := random(1, 3<<20)
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		mustPut(t, old, name, data)
	}
	now := over(t, "4+2", fakes, quick())
	for _, name := range names {
		wantContent(t, now, name, data)
		if err := now.Repair(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if r, err := now.Check(t.Context(), name); err != nil || !r.Full {
			t.Errorf("%+v, %v", r, err)
		}
		wantContent(t, now, name, data)
	}
	files := 0
	for _, fk := range fakes {
		files += len(fk.content())
	}
	if files != 4*6 {
		t.Errorf("%d files, want 24", files)
	}
}

// TestExchanged: a shard under another shard's or object's name is noticed.
func TestExchanged(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	a, b := random(1, 500<<10), random(2, 500<<10)
	mustPut(t, tg, "a", a)
	mustPut(t, tg, "b", b)
	mustPut(t, tg, "c", []byte("c"))
	mustPut(t, tg, "d", []byte("d"))
	for _, fk := range fakes[:2] {
		was := fk.content()
		var files [2]string
		for name := range was {
			if strings.HasPrefix(name, "a.") {
				files[0] = name
			}
			if strings.HasPrefix(name, "b.") {
				files[1] = name
			}
		}
		fk.change(func(name string, p []byte) []byte {
			switch name {
			case files[0]:
				return was[files[1]]
			case files[1]:
				return was[files[0]]
			case "c":
				return was["d"]
			}
			return p
		})
	}
	wantContent(t, tg, "a", a)
	wantContent(t, tg, "b", b)
	wantContent(t, tg, "c", []byte("c"))
	for _, name := range []string{"a", "b", "c"} {
		r, err := tg.Check(t.Context(), name)
		bad := 0
		for _, p := range r.Parts {
			if p.Err != nil && !errors.Is(p.Err, fs.ErrNotExist) {
				bad++
			}
		}
		if err != nil || bad != 2 {
			t.Errorf("%s: %d bad parts: %+v, %v", name, bad, r, err)
		}
	}
}

// sink is a target that forgets all, slowly if it is asked to.
type sink struct {
	fake
	pause time.Duration
}

func (s *sink) Put(_ context.Context, _ string, src target.Source, _ target.PutOptions) error {
	p := make([]byte, 1<<20)
	for off := int64(0); ; off += 1 << 20 {
		if _, err := src.ReadAt(p, off); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		time.Sleep(s.pause)
	}
}

// zeros is a source of any length that takes no memory.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }
func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	return len(p), nil
}

// TestMemory: a long object takes as little memory as a short one, also if one member is slow.
func TestMemory(t *testing.T) {
	for _, layout := range []Layout{{4, 2}, {16, 16}} {
		var members []Member
		for i := range layout.total() {
			s := &sink{fake: *newFake("s")}
			if i == 1 {
				s.pause = 200 * time.Microsecond
			}
			members = append(members, Member{ID: string(rune('a' + i)), Target: s})
		}
		tg, err := New(layout, members, Options{})
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		var peak atomic.Uint64
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				runtime.ReadMemStats(&now)
				peak.Store(max(peak.Load(), now.HeapAlloc))
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
		}()
		const size = 256 << 20
		if err := tg.Put(t.Context(), "p", zeros(size), target.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-stopped
		used := int64(peak.Load()) - int64(before.HeapAlloc)
		t.Logf("%s: %d MiB of heap for an object of %d MiB, of which the members have %d", layout, used>>20, size>>20, layout.total())
		if used > 48<<20+int64(layout.total())<<20 {
			t.Errorf("%s: %d bytes of heap", layout, used)
		}
	}
}

// TestMembersLeave: what is on members that are leaving is read while they do, and Repair moves it, whatever the layout and whoever is away meanwhile; in the end
// nothing is left on them.
func TestMembersLeave(t *testing.T) {
	fakes := newFakes(9)
	objects := map[string][]byte{"long": random(1, 3<<20), "short": random(2, 100), "head": random(3, 300<<10)}
	before := over(t, "4+2", fakes[:6], quick())
	mustPut(t, before, "long", objects["long"])
	mustPut(t, before, "short", objects["short"])
	if err := before.Put(t.Context(), "head", bytes.NewReader(objects["head"]), target.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		layout string
		stay   []int
	}{{"4+2", []int{0, 1, 2, 6, 7, 8}}, {"2+1", []int{3, 4, 5}}, {"1+1", []int{3, 4}}, {"4+2", []int{8, 7, 6, 2, 1, 0}}, {"4+2", []int{0, 1, 2, 3, 4, 5, 6, 7}}} {
		var members []Member
		stays := map[int]bool{}
		for _, i := range c.stay {
			stays[i] = true
		}
		for i, fk := range fakes {
			members = append(members, Member{ID: fmt.Sprint(i), Target: fk, Leaving: !stays[i]})
		}
		l, err := ParseLayout(c.layout)
		if err != nil {
			t.Fatal(err)
		}
		now, err := New(l, members, quick())
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range objects {
			wantContent(t, now, name, data)
			fakes[0].set(unavailable)
			wantContent(t, now, name, data)
			_ = now.Repair(t.Context(), name) // as far as it goes
			wantContent(t, now, name, data)
			fakes[0].set(works)
			wantContent(t, now, name, data)
			if err := now.Repair(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			wantContent(t, now, name, data)
			if r, err := now.Check(t.Context(), name); err != nil || !r.Full {
				t.Errorf("%s, %s: %+v, %v", c.layout, name, r, err)
			}
		}
		for i, fk := range fakes {
			if n := len(fk.content()); !stays[i] && n > 0 || stays[i] && n == 0 {
				t.Errorf("%s: %d files on %d, which stays: %v", c.layout, n, i, stays[i])
			}
		}
		mustPut(t, now, "short", objects["short"])
		if err := now.Put(t.Context(), "head", bytes.NewReader(nil), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrExists) {
			t.Errorf("%s: %v", c.layout, err)
		}
	}
}

// TestRepairBeyondTheEnd: an object whose bytes can all be read is repaired, though too many shards are damaged where the last one has only zeros, which nobody reads.
func TestRepairBeyondTheEnd(t *testing.T) {
	f := newField(t, "4+2", 6)
	data := random(1, 9*unitLen+100) // three units a shard, and shard 3 has but a few bytes of it
	mustPut(t, f.tg, "p", data)
	for _, fk := range f.fakes {
		for name, p := range fk.content() {
			object, _, number, ok := parseShard(name)
			if !ok || object != "p" || number < 3 {
				continue
			}
			bad := bytes.Clone(p)
			bad[headerLen+unitLen+1] ^= 1
			if err := target.Put(t.Context(), fk, name, bad); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantContent(t, f.tg, "p", data)
	if r, err := f.tg.Check(t.Context(), "p"); err != nil || r.Full || len(r.places) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := f.tg.Repair(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f.tg, "p", data)
	if r, err := f.tg.Check(t.Context(), "p"); err != nil || !r.Full {
		t.Errorf("%+v, %v", r, err)
	}
}
