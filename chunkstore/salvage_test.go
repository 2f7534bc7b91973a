package chunkstore

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

// salvageAll copies what can be found in a pack.
func (f *fixture) salvageAll(t *testing.T, pack PackID) (Salvaged, map[ID]bool) {
	t.Helper()
	w := f.NewRepackWriter(t.Context())
	defer w.Close()
	got, err := f.Salvage(t.Context(), pack, func(ID) bool { return true }, w)
	if err != nil {
		t.Fatal(err)
	}
	written, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[ID]bool)
	for _, l := range written.Chunks {
		ids[l.ID] = true
		if _, err := f.GetAt(t.Context(), l, nil); err != nil {
			t.Errorf("a copied record can't be read: %v", err)
		}
	}
	return got, ids
}

// TestSalvage damages a pack of many records: all that are whole are found, however the others look.
func TestSalvage(t *testing.T) {
	r := newRand(7)
	f := newFixture(t, Options{Workers: 1})
	var chunks [][]byte
	for i := range 40 {
		chunks = append(chunks, append(bytes.Repeat([]byte{byte(i)}, r.IntN(300)), randomChunk(r, r.IntN(5000))...))
	}
	w := f.store(t, chunks...)
	pack := w.Packs[0].ID
	whole := readFile(t, f.packPath(pack))
	end := int(w.Chunks[len(w.Chunks)-1].Offset + w.Chunks[len(w.Chunks)-1].Length)
	for name, damage := range map[string]func(p []byte) []byte{
		"header":           func(p []byte) []byte { p[1] ^= 1; return p },
		"footer":           func(p []byte) []byte { p[len(p)-30] ^= 1; return p },
		"trailer":          func(p []byte) []byte { p[end+20] ^= 1; return p },
		"no trailer":       func(p []byte) []byte { return p[:end] },
		"cut in a record":  func(p []byte) []byte { return p[:end-1] },
		"length of record": func(p []byte) []byte { p[w.Chunks[5].Offset+5] ^= 0x10; return p[:end] },
		"content":          func(p []byte) []byte { p[w.Chunks[9].Offset+recordHeader] ^= 1; return p[:end] },
		"several":          func(p []byte) []byte { return scratch(r, p[:end], 10) },
		"nothing left":     func([]byte) []byte { return nil },
	} {
		p := damage(bytes.Clone(whole))
		f.overwrite(t, pack, p)
		got, ids := f.salvageAll(t, pack)
		lost := 0
		for _, l := range w.Chunks {
			from, to := int(l.Offset), int(l.Offset+l.Length)
			intact := to <= len(p) && bytes.Equal(p[from:to], whole[from:to])
			if intact != ids[l.ID] {
				t.Errorf("%s: record at %d: whole %v, found %v", name, l.Offset, intact, ids[l.ID])
			}
			if !intact {
				lost++
			}
		}
		if got.Copied != len(w.Chunks)-lost {
			t.Errorf("%s: %d copied, want %d", name, got.Copied, len(w.Chunks)-lost)
		}
	}
}

// scratch changes bytes here and there.
func scratch(r *rand.Rand, p []byte, n int) []byte {
	for range n {
		p[headerLen+r.IntN(len(p)-headerLen)] ^= byte(1 + r.IntN(255))
	}
	return p
}

// TestSalvageEnds: a pack made to look like the beginning of a record everywhere doesn't keep it busy.
func TestSalvageEnds(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	pack := f.store(t, []byte("x")).Packs[0].ID
	f.overwrite(t, pack, bytes.Repeat([]byte{0, 0, 0x0f, 0}, 2<<20/4)) // lengths of up to a MiB, raw
	ctx, cancel := context.WithTimeout(t.Context(), 20*1e9)
	defer cancel()
	w := f.NewRepackWriter(ctx)
	defer w.Close()
	if got, err := f.Salvage(ctx, pack, func(ID) bool { return true }, w); err != nil || got.Copied > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
