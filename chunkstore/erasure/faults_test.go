package erasure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"graphvol/chunkstore/target"
)

// fault is what may happen to a target.
type fault struct {
	name string
	hurt func(f *fake)
}

func faults() []fault {
	return []fault{
		{"lost", func(f *fake) { f.change(func(string, []byte) []byte { return nil }) }},
		{"flipped", func(f *fake) {
			f.change(func(name string, p []byte) []byte { // in the body, or with short names in the header or table
				p[(len(p)*len(name)/7)%len(p)] ^= 0x10
				return p
			})
		}},
		{"cut", func(f *fake) { f.change(func(_ string, p []byte) []byte { return p[:len(p)-1] }) }},
		{"unavailable", func(f *fake) { f.set(unavailable) }},
		{"hanging", func(f *fake) { f.set(hangs) }},
	}
}

// field is a target with a few objects, whose members can be hurt and made whole again.
type field struct {
	t       *testing.T
	fakes   []*fake
	tg      *Target
	objects map[string][]byte
	whole   []map[string][]byte
}

func newField(t *testing.T, layout string, n int) *field {
	t.Helper()
	f := &field{t: t, fakes: newFakes(n), objects: map[string][]byte{
		"packs/aa/1.pack": random(1, 300<<10), "packs/aa/2.pack": random(2, 5*unitLen*4-17), "manifests/1.json": random(3, 5000), "manifests/0": nil,
		"heads/0000": random(4, 100),
	}}
	f.tg = over(t, layout, f.fakes, quick())
	whole := over(t, layout, f.fakes, Options{}) // which waits for a machine that stands still
	for name, data := range f.objects {
		if err := whole.Put(t.Context(), name, bytes.NewReader(data), target.PutOptions{IfAbsent: strings.HasPrefix(name, "heads")}); err != nil {
			t.Error(err)
		}
	}
	for _, fk := range f.fakes {
		f.whole = append(f.whole, fk.content())
	}
	return f
}

// heal undoes everything; a new target has no memory of it.
func (f *field) heal() {
	for i, fk := range f.fakes {
		fk.set(works)
		fk.restore(f.whole[i])
	}
	f.tg = over(f.t, f.tg.layout.String(), f.fakes, quick())
}

// checkReads compares every object, and the list.
func (f *field) checkReads(t *testing.T) {
	t.Helper()
	for name, data := range f.objects {
		wantContent(t, f.tg, name, data)
	}
	infos, err := f.tg.List(t.Context(), "")
	if err != nil || len(infos) != len(f.objects) {
		t.Fatalf("list: %v, %v", infos, err)
	}
	for _, in := range infos {
		if want, ok := f.objects[in.Name]; !ok || int64(len(want)) != in.Size {
			t.Errorf("listed: %v, want %d bytes", in, len(want))
		}
	}
}

func (f *field) checkPuts(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range []struct {
		name string
		size int
		o    target.PutOptions
	}{{"new/short", 1000, target.PutOptions{}}, {"new/long", 400 << 10, target.PutOptions{}}, {"new/head", 300, target.PutOptions{IfAbsent: true}}} {
		wg.Go(func() {
			data := random(uint64(c.size), c.size)
			if err := f.tg.Put(t.Context(), c.name, bytes.NewReader(data), c.o); err != nil && !errors.As(err, new(*DegradedError)) {
				t.Errorf("put %s: %v", c.name, err)
			} else if got, err := target.Get(t.Context(), f.tg, c.name, 1<<20); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes read differ from the %d put: %v", c.name, len(got), c.size, err)
			}
		})
	}
	wg.Wait()
}

// checkRepair lets Repair undo what was done to files.
func (f *field) checkRepair(t *testing.T) {
	t.Helper()
	for name := range f.objects {
		if err := f.tg.Repair(t.Context(), name); err != nil {
			t.Fatalf("repair %s: %v", name, err)
		}
		if r, err := f.tg.Check(t.Context(), name); err != nil || !r.Full {
			t.Errorf("check %s after repair: %+v, %v", name, r, err)
		}
	}
	for i, fk := range f.fakes {
		got := fk.content()
		maps.DeleteFunc(got, func(name string, _ []byte) bool { return strings.HasPrefix(name, "new/") })
		if !maps.EqualFunc(got, f.whole[i], bytes.Equal) {
			t.Errorf("%s is not what it was before", fk)
		}
	}
}

// harm is what happens to some members at once.
type harm struct {
	members []int
	faults  []fault
}

func (h harm) String() string {
	out := make([]string, len(h.members))
	for i, m := range h.members {
		out[i] = fmt.Sprintf("%d %s", m, h.faults[i].name)
	}
	return strings.Join(out, ", ")
}

func (h harm) apply(f *field) {
	for i, m := range h.members {
		h.faults[i].hurt(f.fakes[m])
	}
}

// each runs a test for every case, several at a time because most of it is waiting.
func each(t *testing.T, layout string, n int, cases []harm, test func(*testing.T, *field, harm)) {
	next := make(chan harm)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f := newField(t, layout, n)
			for h := range next {
				t.Run(h.String(), func(t *testing.T) {
					defer f.heal()
					h.apply(f)
					test(t, f, h)
				})
			}
		})
	}
	for _, h := range cases {
		next <- h
	}
	close(next)
	wg.Wait()
}

// TestTwoOfSix: whatever happens to one or two of six members, nothing is lost and all goes on.
func TestTwoOfSix(t *testing.T) {
	var cases []harm
	for a := range 6 {
		for _, fa := range faults() {
			cases = append(cases, harm{[]int{a}, []fault{fa}})
			for b := range a {
				for _, fb := range faults() {
					cases = append(cases, harm{[]int{a, b}, []fault{fa, fb}})
				}
			}
		}
	}
	each(t, "4+2", 6, cases, func(t *testing.T, f *field, h harm) {
		f.checkReads(t)
		f.checkPuts(t)
		for _, m := range h.members {
			f.fakes[m].set(works)
		}
		f.checkRepair(t)
	})
}

// TestThreeOfSix: more than parity is an error that says what is missing, and of the right class.
func TestThreeOfSix(t *testing.T) {
	var cases []harm
	for _, x := range faults() {
		for a := range 6 {
			for b := range a {
				for c := range b {
					cases = append(cases, harm{[]int{a, b, c}, []fault{x, x, x}})
				}
			}
		}
	}
	each(t, "4+2", 6, cases, func(t *testing.T, f *field, h harm) {
		const name = "packs/aa/2.pack"
		got, err := target.Get(t.Context(), f.tg, name, 1<<30)
		kind := h.faults[0].name
		if err == nil {
			if kind != "flipped" || !bytes.Equal(got, f.objects[name]) { // different units of the shards may be hurt
				t.Fatalf("%d bytes were read", len(got))
			}
			return
		}
		lost := (*LostError)(nil)
		if !errors.As(err, &lost) || len(lost.Missing) != 3 || lost.Layout.String() != "4+2" {
			t.Errorf("%v, want one that names three shards", err)
		}
		passes := kind == "unavailable" || kind == "hanging"
		if errors.Is(err, target.ErrUnavailable) != passes || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: wrong class", err)
		}
		for _, m := range h.members {
			if !strings.Contains(err.Error(), "on "+f.fakes[m].name+": ") {
				t.Errorf("%v doesn't name %s", err, f.fakes[m])
			}
		}
	})
}

func TestNotExist(t *testing.T) {
	f := newField(t, "4+2", 6)
	if _, err := f.tg.Open(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
	for _, m := range []mode{unavailable, hangs} {
		f.fakes[3].set(m)
		if _, err := f.tg.Open(t.Context(), "none"); !errors.Is(err, target.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a member doesn't answer: %v, want ErrUnavailable", err)
		}
	}
}

// TestRemovedWhileOpen: what is removed under a reader is no damage.
func TestRemovedWhileOpen(t *testing.T) {
	f := newField(t, "4+2", 6)
	for name := range f.objects {
		o, err := f.tg.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.tg.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := o.ReadAt(t.Context(), make([]byte, o.Size()), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrNotExist", name, err)
		}
		o.Close()
	}
}

// TestRandomReads compares ranges, while units of all shards are hurt so that each can be decoded still.
func TestRandomReads(t *testing.T) {
	for _, layout := range []string{"1+2", "3+1", "4+2", "10+3"} {
		fakes := newFakes(13)
		tg := over(t, layout, fakes, quick())
		data := random(9, 7<<20+12345)
		mustPut(t, tg, "p", data)
		rnd := rand.New(rand.NewPCG(1, 2))
		victim := make(map[int]bool) // by unit
		for _, fk := range fakes {
			fk.change(func(_ string, p []byte) []byte {
				body := int64(len(p)) - headerLen
				for u := range int(body / (unitLen + 4)) {
					if !victim[u] && rnd.IntN(3) == 0 {
						victim[u] = true
						p[headerLen+u*unitLen+rnd.IntN(unitLen)] ^= 1
					}
				}
				return p
			})
		}
		o, err := tg.Open(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			off := rnd.IntN(len(data) + 10)
			p := make([]byte, rnd.IntN(1<<rnd.IntN(22)+1))
			n, err := o.ReadAt(t.Context(), p, int64(off))
			want := data[min(off, len(data)):min(off+len(p), len(data))]
			if !bytes.Equal(p[:n], want) || (n < len(p)) != errors.Is(err, io.EOF) || n == len(p) && err != nil {
				t.Fatalf("%s: read %d at %d: %d, %v", layout, len(p), off, n, err)
			}
		}
		o.Close()
	}
}

// TestOneRead: a short range costs one read of one member, once the shard is open.
func TestOneRead(t *testing.T) {
	fakes := newFakes(6)
	tg := over(t, "4+2", fakes, quick())
	mustPut(t, tg, "p", random(1, 4<<20))
	o, err := tg.Open(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for range 3 {
		if _, err := o.ReadAt(t.Context(), make([]byte, 1000), 5000); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, f := range fakes {
		total += f.mu.reads
	}
	if total != 2+3 {
		t.Errorf("%d reads, want two to open the shard and three", total)
	}
}

// TestLateMember: a member that was too slow for Open is asked when others fail later.
func TestLateMember(t *testing.T) {
	for name, size := range map[string]int{"p": 300 << 10, "short": 100} {
		fakes := newFakes(6)
		tg := over(t, "4+2", fakes, quick())
		data := random(1, size)
		mustPut(t, tg, name, data)
		late := order(tg.ids, name)[5]
		fakes[late].set(hangs)
		o, err := tg.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		fakes[late].set(works)
		hurt := order(tg.ids, name)[:2]
		if size < shortObject {
			hurt = order(tg.ids, name)[:5]
		}
		for _, m := range hurt {
			fakes[m].change(func(_ string, p []byte) []byte {
				p[headerLen+size/10] ^= 1
				return p
			})
		}
		p := make([]byte, size)
		if _, err := o.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Errorf("%s: %v", name, err)
		}
		o.Close()
	}
}
