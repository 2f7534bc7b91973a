package chunkstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goldenPack is a pack with a raw and a compressed chunk, the same each time.
func goldenPack(t testing.TB) ([]byte, PackID) {
	f := newFixture(t, Options{Workers: 1})
	f.nonce = func() [nonceLen]byte { return [nonceLen]byte([]byte("0123456789abcdef")) }
	pack := f.store(t, []byte("raw chunk"), bytes.Repeat([]byte("ab"), 300)).Packs[0].ID
	return readFile(t, f.packPath(pack)), pack
}

// dump annotates a pack as the package documentation describes it.
func dump(p []byte, id PackID) string {
	var b strings.Builder
	pos := 0
	field := func(n int, what string) {
		fmt.Fprintf(&b, "%4d  %-64s  %s\n", pos, hex.EncodeToString(p[pos:pos+n]), what)
		pos += n
	}
	fmt.Fprintf(&b, "pack %s\n", id)
	field(8, "header: magic")
	field(4, "header: version")
	field(4, "header: zero")
	f, err := decodeFooter(p[len(p)-footerLen:], p[:headerLen], int64(len(p)))
	if err != nil {
		return err.Error()
	}
	for pos < int(f.trailerOff) {
		_, n, enc := recordFields(p[pos:])
		field(4, "record: CRC-32C")
		field(3, "record: stored bytes")
		field(1, fmt.Sprintf("record: encoding %d", enc))
		field(int(n), "record: stored")
	}
	field(nonceLen, "trailer: random")
	for range f.count {
		field(32, "trailer: chunk id")
		field(4, "trailer: record length")
		field(4, "trailer: chunk length")
	}
	field(8, "footer: trailer offset")
	field(4, "footer: number of chunks")
	field(4, "footer: zero")
	field(32, "footer: SHA-256 of the trailer")
	field(4, "footer: zero")
	field(4, "footer: CRC-32C")
	field(8, "footer: magic")
	return b.String()
}

func TestGolden(t *testing.T) {
	p, id := goldenPack(t)
	got := dump(p, id)
	const name = "testdata/pack.golden"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(readFile(t, name)); got != want {
		t.Errorf("the pack format changed. Got:\n%s\nwant:\n%s", got, want)
	}
}

// TestGoldenReadable reads the pack in the golden file, whatever the compressor of today would write.
func TestGoldenReadable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(string(readFile(t, "testdata/pack.golden"))), "\n")
	var p []byte
	for _, line := range lines[1:] {
		b, err := hex.DecodeString(strings.Fields(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, b...)
	}
	id, err := ParsePackID(strings.TrimPrefix(lines[0], "pack "))
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, Options{})
	if err := os.MkdirAll(f.packPath(id)[:len(f.packPath(id))-len(id.String()+packSuffix)], 0o700); err != nil {
		t.Fatal(err)
	}
	f.overwrite(t, id, p)
	chunks, err := f.ReadTrailer(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f.loc.add(chunks)
	for _, want := range [][]byte{[]byte("raw chunk"), bytes.Repeat([]byte("ab"), 300)} {
		if got, err := f.Get(t.Context(), Sum(want), nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %v", got, err)
		}
	}
	f.check(t)
}

func TestNewerFormat(t *testing.T) {
	f := newFixture(t, Options{})
	pack := f.store(t, []byte("x")).Packs[0].ID
	p := readFile(t, f.packPath(pack))
	p[8]++
	foot := p[len(p)-footerLen:] // a newer program's footer is for its own header
	binary.LittleEndian.PutUint32(foot[52:], crc32.Update(crc32.Checksum(p[:headerLen], castagnoli), castagnoli, foot[:52]))
	f.overwrite(t, pack, p)
	if _, err := f.Get(t.Context(), Sum([]byte("x")), nil); !errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrCorrupt) {
		t.Errorf("get: %v, want ErrNewerFormat", err)
	}
	if _, err := f.ReadTrailer(t.Context(), pack); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("trailer: %v, want ErrNewerFormat", err)
	}
}

func FuzzTrailer(f *testing.F) {
	p, id := goldenPack(f)
	ft, err := decodeFooter(p[len(p)-footerLen:], p[:headerLen], int64(len(p)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p[ft.trailerOff:len(p)-footerLen], ft.trailerOff)
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, p []byte, off uint64) {
		chunks, err := decodeTrailer(p, id, off)
		if err != nil {
			return
		}
		var entries []entry
		for _, c := range chunks {
			entries = append(entries, entry{c.ID, c.Length, c.RawLen})
			if !c.plausible() || uint64(c.Offset)+uint64(c.Length) > off {
				t.Errorf("accepted %+v", c)
			}
		}
		if again := appendTrailer(nil, [nonceLen]byte(p), entries); !bytes.Equal(again, p) {
			t.Error("encodes differently")
		}
	})
}

func FuzzFooter(f *testing.F) {
	p, _ := goldenPack(f)
	f.Add(p[len(p)-footerLen:], p[:headerLen], int64(len(p)))
	f.Fuzz(func(t *testing.T, p, header []byte, size int64) {
		if checkHeader(header) != nil {
			return
		}
		ft, err := decodeFooter(p, header, size)
		if err != nil {
			return
		}
		if int64(ft.trailerOff)+ft.trailerLen()+footerLen != size {
			t.Errorf("accepted %+v for a pack of %d bytes", ft, size)
		}
	})
}

func FuzzRecord(f *testing.F) {
	s, err := Open(f.Context(), nil, nil, Options{Workers: 1})
	if err != nil {
		f.Fatal(err)
	}
	p, id := goldenPack(f)
	chunks, err := decodeTrailer(p[len(p)-footerLen-nonceLen-2*entryLen:len(p)-footerLen], id, uint64(len(p)-footerLen-nonceLen-2*entryLen))
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range chunks {
		f.Add(p[c.Offset:c.Offset+c.Length], c.RawLen)
	}
	f.Fuzz(func(t *testing.T, rec []byte, rawLen uint32) {
		if len(rec) < recordHeader || rawLen > MaxChunk {
			return
		}
		sealRecord(rec, rec[7]) // else the checksum stops nearly all
		l := &Located{Location: Location{Length: uint32(len(rec)), RawLen: rawLen}}
		got, err := s.decodeRecord(l, rec, make([]byte, rawLen))
		if err == nil && len(got) != int(rawLen) {
			t.Errorf("%d bytes of %d", len(got), rawLen)
		}
	})
}

func FuzzPack(f *testing.F) {
	p, id := goldenPack(f)
	f.Add(p)
	fx := newFixture(f, Options{Workers: 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		obj := &memObject{bytes.NewReader(p)}
		h := &packHandle{id: id, obj: obj}
		if len(p) < minPackLen || checkHeader(p) != nil {
			return
		}
		copy(h.header[:], p)
		chunks, end, err := readTrailer(t.Context(), h)
		if err != nil {
			return
		}
		_ = fx.walkRecords(t.Context(), obj, walkBuffer, chunks, end, func(l *Located, rec []byte, err error) error {
			if err == nil {
				_ = fx.verifyRecord(l, rec)
			}
			return nil
		})
	})
}

type memObject struct{ r *bytes.Reader }

func (o *memObject) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return o.r.ReadAt(p, off)
}
func (o *memObject) Size() int64 { return o.r.Size() }

func (*memObject) Close() error { return nil }

func FuzzIDs(f *testing.F) {
	f.Add(strings.Repeat("0a", 32))
	f.Add("packs/0a/" + strings.Repeat("0a", 16) + ".pack")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Errorf("id %q becomes %q", s, id)
		}
		if id, err := ParsePackID(s); err == nil && id.String() != s {
			t.Errorf("pack id %q becomes %q", s, id)
		}
		if id, ok := ParsePackObject(s); ok && id.Object() != s {
			t.Errorf("name %q becomes %q", s, id.Object())
		}
	})
}
