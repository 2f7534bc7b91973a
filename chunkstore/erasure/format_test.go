package erasure

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
)

var update = flag.Bool("update", false, "write the golden files anew")

func goldenVersion() version {
	return version{Layout{3, 2}, 2*unitLen + 100, 0x0123456789abcdef}
}

// file is a shard or copy as it is stored.
func file(t testing.TB, name string, h header, content []byte) []byte {
	t.Helper()
	tg := over(t, "3+2", newFakes(5), quick())
	codec, err := tg.codec(h.Layout)
	if err != nil {
		t.Fatal(err)
	}
	src := newShardSource(newStripes(h, codec, 1, fromSource(bytes.NewReader(content), h.body), defaultPace), 0, h)
	p := make([]byte, src.Size())
	if _, err := src.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// dump annotates a file as the package documentation describes it.
func dump(p []byte, body int) string {
	var b strings.Builder
	pos := 0
	field := func(n int, what string) {
		show := p[pos : pos+n]
		more := ""
		if n > 32 {
			show, more = show[:29], "..."
		}
		fmt.Fprintf(&b, "%6d  %-64s  %s\n", pos, hex.EncodeToString(show)+more, what)
		pos += n
	}
	field(8, "magic")
	field(4, "version")
	for _, what := range []string{"k", "m", "number", "kind"} {
		field(1, what)
	}
	field(8, "length of the object")
	field(8, "length of the body")
	field(8, "generation")
	field(32, "SHA-256 of the name")
	field(20, "zero")
	field(4, "CRC-32C of the header")
	for body > 0 {
		n := min(body, unitLen)
		field(n, "unit")
		body -= n
	}
	for len(p)-pos > 4 {
		field(4, "CRC-32C of a unit")
	}
	field(4, "CRC-32C of the table")
	return b.String()
}

func TestGolden(t *testing.T) {
	content := random(7, 2*unitLen+100)
	var b strings.Builder
	v := goldenVersion()
	for i := range v.total() {
		h := newHeader("packs/ab/x.pack", v, i, kindShard)
		fmt.Fprintln(&b, shardName("packs/ab/x.pack", v, i))
		b.WriteString(dump(file(t, "packs/ab/x.pack", h, content), int(h.body)))
	}
	for _, k := range []kind{kindCopy, kindClaim} {
		h := newHeader("heads/1", version{Layout{1, 0}, unitLen + 5, v.gen}, 0, k)
		fmt.Fprintln(&b, "heads/1")
		b.WriteString(dump(file(t, "heads/1", h, content[:h.length]), int(h.body)))
	}
	const name = "testdata/shards.golden"
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the format has changed:\n%s\nwant:\n%s", &b, want)
	}
}

func TestNewerFormat(t *testing.T) {
	p := newHeader("x", goldenVersion(), 1, kindShard)
	b := p.encode()
	b[8] = 2
	if _, err := decodeHeader(b); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("%v, want ErrNewerFormat", err)
	}
}

func TestShardNames(t *testing.T) {
	v := goldenVersion()
	for _, name := range []string{"x", "packs/ab/x.pack", "a.1-1.5.0123456789abcdef.00", "a.b.c.d.e"} {
		got, gv, i, ok := parseShard(shardName(name, v, 4))
		if !ok || got != name || gv != v || i != 4 {
			t.Errorf("%s: %s %v %d %v", name, got, gv, i, ok)
		}
	}
	for _, s := range []string{
		"", "x", "packs/ab/x.pack", ".3-2.5.0123456789abcdef.00", "x.3-2.5.0123456789abcdef.05", "x.3-2.5.0123456789abcdef.0", "x.3-2.5.0123456789ABCDEF.00",
		"x.3-2.05.0123456789abcdef.00", "x.03-2.5.0123456789abcdef.00", "x.0-2.5.0123456789abcdef.00", "x.33-0.5.0123456789abcdef.00",
		"x.3-2.5.123456789abcdef.00", "x.3-2.-5.0123456789abcdef.00", "x.3-2.+5.0123456789abcdef.00", "x.3-2.4000000000001.0123456789abcdef.00",
	} {
		if name, v, i, ok := parseShard(s); ok {
			t.Errorf("%q was read as shard %d of %q, %v", s, i, name, v)
		}
	}
	tg := over(t, "4+2", newFakes(6), quick())
	if err := target.Put(t.Context(), tg, shardName("x", v, 0), nil); !errors.Is(err, target.ErrBadName) {
		t.Errorf("put under a shard's name: %v, want ErrBadName", err)
	}
}

func TestLayouts(t *testing.T) {
	for s, want := range map[string]string{
		"4+2": "", "1+0": "", "1+31": "", "32+0": "", "": "want DATA+PARITY", "4": "want DATA+PARITY", "4+2x": "want DATA+PARITY", "04+2": "want DATA+PARITY",
		"4 +2": "want DATA+PARITY", "0+2": "at least one data shard", "4+-1": "less than no parity", "30+3": "no more than 32", "99999999999999999999+1": "want DATA+PARITY",
		"9223372036854775807+9223372036854775807": "no more than 32",
	} {
		_, err := ParseLayout(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
	if _, err := New(Layout{4, 2}, []Member{{ID: "a", Target: newFake("a")}}, Options{}); err == nil || !strings.Contains(err.Error(), "takes 6 targets, there are 1") {
		t.Errorf("too few members: %v", err)
	}
	if _, err := New(Layout{1, 1}, []Member{{ID: "a", Target: newFake("a")}, {ID: "a", Target: newFake("b")}}, Options{}); err == nil {
		t.Error("two members of one id were accepted")
	}
}

// TestCopyLen: lengths are found in sizes, and no length in others.
func TestCopyLen(t *testing.T) {
	sizes := make(map[int64]int64)
	for _, base := range []int64{0, unitLen, 3 * unitLen, maxLength - 20} {
		for n := max(0, base-20); n <= base+20; n++ {
			sizes[fileLen(n)] = n
			if got, ok := copyLen(fileLen(n)); !ok || got != n {
				t.Fatalf("copy of %d bytes: %d, %v", n, got, ok)
			}
		}
	}
	for _, size := range slices.Collect(maps.Keys(sizes)) {
		for d := int64(-4); d <= 4; d++ {
			if got, ok := copyLen(size + d); ok && fileLen(got) != size+d {
				t.Fatalf("%d bytes read as a copy of %d", size+d, got)
			}
		}
	}
	if _, ok := copyLen(headerLen + 3); ok {
		t.Error("a file without a table was accepted")
	}
}

// TestOrder: a new member takes its share and moves nothing else.
func TestOrder(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e", "f"}
	moved, first := 0, make(map[int]int)
	for i := range 1000 {
		name := fmt.Sprintf("packs/%d", i)
		old := order(ids, name)
		now := slices.DeleteFunc(order(append(slices.Clone(ids), "g"), name), func(m int) bool { return m == 6 })
		if !slices.Equal(old, now) {
			moved++
		}
		first[old[0]]++
	}
	if moved > 0 {
		t.Errorf("%d objects have another order of the old members", moved)
	}
	for m, n := range first {
		if n < 100 || n > 250 {
			t.Errorf("member %d is the first for %d of 1000", m, n)
		}
	}
}

func FuzzHeader(f *testing.F) {
	for i := range 5 {
		h := newHeader("x", goldenVersion(), i, kindShard)
		f.Add(h.encode())
	}
	h := newHeader("y", version{Layout{1, 0}, 5, 1}, 0, kindClaim)
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err != nil {
			return
		}
		if !bytes.Equal(h.encode(), p[:headerLen]) {
			t.Errorf("%x decodes to %+v, which encodes to something else", p, h)
		}
		if h.check() != nil || h.number >= h.total() || fileLen(h.body) < 0 {
			t.Errorf("accepted: %+v", h)
		}
	})
}

// FuzzShard reads any bytes as the shards of an object.
func FuzzShard(f *testing.F) {
	v := version{Layout{1, 1}, 10, 5}
	h := newHeader("x", v, 0, kindShard)
	good := file(f, "x", h, []byte("0123456789"))
	f.Add(good[:headerLen+20], good[headerLen+unitLen:], uint16(0), byte(0))
	f.Add(good[:headerLen], good[headerLen+unitLen:], uint16(headerLen+3), byte(1))
	f.Fuzz(func(t *testing.T, head, tail []byte, at uint16, flip byte) {
		p := make([]byte, len(good))
		copy(p, good)
		copy(p, head)
		copy(p[len(p)-min(len(tail), len(p)):], tail)
		p[int(at)%len(p)] ^= flip
		fakes := newFakes(2)
		fakes[0].restore(map[string][]byte{shardName("x", v, 0): p})
		tg := over(t, "1+1", fakes, quick())
		if got, err := target.Get(t.Context(), tg, "x", 1<<20); err == nil && !bytes.Equal(p[headerLen:headerLen+10], got) {
			t.Errorf("read %q of %q", got, p[headerLen:headerLen+10])
		}
	})
}

// FuzzName reads any name as a shard's.
func FuzzName(f *testing.F) {
	f.Add(shardName("packs/ab/x.pack", goldenVersion(), 3))
	f.Fuzz(func(t *testing.T, s string) {
		if name, v, i, ok := parseShard(s); ok && shardName(name, v, i) != s {
			t.Errorf("%q reads as shard %d of %q, %v", s, i, name, v)
		}
	})
}
