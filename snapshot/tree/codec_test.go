package tree

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"graphvol/chunkstore"
)

func testID(b byte) (id chunkstore.ID) {
	for i := range id {
		id[i] = b
	}
	return id
}

func sampleInode() *Inode {
	return &Inode{
		Ino: 131, Gen: 0x1122334455667788, Mode: ModeRegular | 0o640, UID: 1000, GID: 100, Nlink: 2, Size: 300_000,
		Mtime: Time{1764036981, 5}, Ctime: Time{1764036982, 999_999_999}, Btime: Time{-1, 0},
		Xattrs: []Xattr{{"user.a", []byte("1")}, {"user.b", nil}}, Blocks: 74,
		Content: Ref{Count: 3, ID: testID(0xcc)},
	}
}

func sampleSegments() []Segment {
	var delta, trimmed Segment
	delta.Append(Extent{First: 0, Blocks: 7, Chunk: testID(0xa1)})
	delta.Append(Extent{First: 7, Blocks: 2, Chunk: testID(0xb2)})
	delta.Append(Extent{First: 9, Blocks: 20, ChunkFirst: 9, Chunk: testID(0xa1)})
	delta.Append(Extent{First: 31, Blocks: 1, ChunkFirst: 2, Chunk: testID(0xb2)})
	trimmed.Append(Extent{First: 3, Blocks: 1, Chunk: testID(0xa1)})
	return []Segment{{Extents: []Extent{{Blocks: 32, Chunk: testID(0xa1)}}}, {Extents: []Extent{{Blocks: 1, Chunk: testID(0xa1)}}}, delta, trimmed}
}

// samples are encodings of each kind, with what they are.
func samples(t testing.TB) (names []string, encodings [][]byte) {
	add := func(name string, p []byte) { names, encodings = append(names, name), append(encodings, p) }
	m := newMemory()
	add("leaf of three segments", encodeLeaf(nil, []Entry{{Key: 5, Value: []byte{1}}, {Key: 6, Value: []byte{2, 2}}, {Key: 400, Value: nil}}))
	add("leaf with names", encodeLeaf(nil, []Entry{DirEntry(Dirent{"data.db", 131, 8}), DirEntry(Dirent{"wal", 132, 4})}[:1]))
	small := encodeLeaf(nil, []Entry{{Key: 64, Value: []byte("x")}})
	add("branch at level 1", encodeBranch(nil, 1, 4096, 1<<0|1<<1|1<<63, []Ref{{Count: 64, ID: testID(0x11)}, {Count: 1, Inline: small}, {Count: 2, ID: testID(0x22)}}))
	rec, err := EncodeInode(m, sampleInode())
	if err != nil {
		t.Fatal(err)
	}
	add("inode", rec)
	in := sampleInode()
	in.Mode, in.Target, in.Content, in.Xattrs = ModeSymlink|0o777, "../db", Ref{}, []Xattr{{"user.big", make([]byte, 600)}}
	if rec, err = EncodeInode(m, in); err != nil {
		t.Fatal(err)
	}
	add("symbolic link with long extended attributes", rec)
	for i, s := range sampleSegments() {
		add([]string{"whole segment", "segment with one block", "segment of two chunks", "segment with one block in the middle"}[i], s.Encode())
	}
	root := Root{Ino: 131, Files: 2, Bytes: 300_000, Inodes: Ref{Count: 1, Inline: small}}
	add("root", root.Encode())
	return names, encodings
}

// TestGolden compares the encodings of the samples with an annotated dump: version 1 of the format never changes.
func TestGolden(t *testing.T) {
	names, encodings := samples(t)
	m := newMemory()
	var es []Entry
	for i := range uint64(5000) {
		es = append(es, Entry{Key: i, Value: []byte{byte(i)}})
	}
	names = append(names, "ref of the map of keys 0 to 4999, each with its lowest byte")
	encodings = append(encodings, build(t, NewNodes(m, 1<<20), m, es).appendTo(nil))
	dump, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := parseGolden(string(dump))
	for i, name := range names {
		if got := fmt.Sprintf("%x", encodings[i]); got != want[name] {
			t.Errorf("%s is now\n%s, was\n%s", name, got, want[name])
		}
	}
}

// parseGolden gives the bytes of each sample: lines begin with bytes, "#" begins a sample, and what follows two spaces is a note.
func parseGolden(dump string) map[string]string {
	samples, name := map[string]string{}, ""
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			name = strings.TrimPrefix(line, "# ")
			continue
		}
		bytes, _, _ := strings.Cut(line, "  ")
		samples[name] += strings.ReplaceAll(bytes, " ", "")
	}
	return samples
}

func TestRecordsComeBack(t *testing.T) {
	m := newMemory()
	nodes := NewNodes(m, 1<<20)
	for _, big := range []int{0, 1, 8, 20} { // of 60,000 bytes: up to three chunks
		in := sampleInode()
		for i := range big {
			in.Xattrs = append(in.Xattrs, Xattr{fmt.Sprintf("user.c%02d", i), make([]byte, 60_000)})
		}
		p, err := EncodeInode(m, in)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := DecodeRecord(in.Ino, p)
		if err != nil {
			t.Fatal(err)
		}
		var list []Xattr
		if err := nodes.EachXattr(t.Context(), &rec, func(x Xattr) error {
			list = append(list, Xattr{x.Name, bytes.Clone(x.Value)})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		rec.Xattrs, rec.XattrChunks = list, nil
		in.Xattrs[1].Value = []byte{}
		if rec.Xattrs[1].Value = append([]byte{}, rec.Xattrs[1].Value...); !reflect.DeepEqual(rec.Inode, *in) {
			t.Errorf("with %d long ones: got %+v, want %+v", big, rec.Inode, *in)
		}
	}
	for _, s := range sampleSegments() {
		if back, err := DecodeSegment(s.Encode()); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("segment %+v came back as %+v, %v", s, back, err)
		}
	}
	d := Dirent{"a name", 1 << 60, 4}
	if back, err := DecodeDirent(DirEntry(d)); err != nil || back != d {
		t.Errorf("entry came back as %+v, %v", back, err)
	}
}

func TestNewerVersionsAreRefused(t *testing.T) {
	root := (&Root{Ino: 1}).Encode()
	root[0] = 2
	if _, err := DecodeRoot(root); !errors.Is(err, chunkstore.ErrNewerFormat) {
		t.Errorf("root: %v", err)
	}
	leaf := encodeLeaf(nil, []Entry{{Key: 1}})
	leaf[0] = 9
	if _, err := decodeNode(leaf, 1); !errors.Is(err, chunkstore.ErrNewerFormat) {
		t.Errorf("node: %v", err)
	}
}

func TestSegmentKeep(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	for range 2000 {
		s := randomSegment(r)
		mask := r.Uint32() | r.Uint32()
		kept := s.Keep(mask)
		if kept.Mask() != s.Mask()&mask {
			t.Fatalf("kept %x of %x and %x", kept.Mask(), s.Mask(), mask)
		}
		if p := kept.Encode(); p != nil {
			if back, err := DecodeSegment(p); err != nil || !reflect.DeepEqual(back, kept) {
				t.Fatalf("%+v came back as %+v: %v", kept, back, err)
			}
		}
		for b := range uint8(32) {
			if kept.Mask()&(1<<b) != 0 && at(&kept, b) != at(&s, b) {
				t.Fatalf("block %d is elsewhere", b)
			}
		}
	}
}

func at(s *Segment, b uint8) string {
	for _, e := range s.Extents {
		if b >= e.First && b < e.First+e.Blocks {
			return fmt.Sprint(e.Chunk[0], e.ChunkFirst+b-e.First)
		}
	}
	return ""
}

func randomSegment(r *rand.Rand) (s Segment) {
	for b := uint8(0); b < 32; {
		n := 1 + uint8(r.IntN(int(min(32-b, 9))))
		if r.IntN(3) > 0 {
			s.Append(Extent{First: b, Blocks: n, ChunkFirst: min(b, 32-n), Chunk: testID(byte(r.IntN(MaxSegmentChunks)))})
		}
		b += n
	}
	return s
}

// fuzz checks that a decoder takes nothing but the one encoding of what it gives.
func fuzz(f *testing.F, again func(p []byte) ([]byte, error)) {
	_, encodings := samples(f)
	for _, p := range encodings {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		q, err := again(p)
		if err != nil {
			if !errors.Is(err, chunkstore.ErrCorrupt) && !errors.Is(err, chunkstore.ErrNewerFormat) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		if !bytes.Equal(p, q) {
			t.Fatalf("%x was decoded, but its encoding is %x", p, q)
		}
	})
}

func FuzzNode(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		if len(p) == 0 {
			return nil, chunkstore.ErrCorrupt
		}
		// The count comes from the reference to a node; take what fits.
		for count := range uint64(200) {
			n, err := decodeNode(p, count)
			switch {
			case err != nil && strings.Contains(err.Error(), ", expected "):
				continue
			case err != nil:
				return nil, err
			case n.isLeaf():
				return encodeLeaf(nil, n.entries), nil
			}
			return encodeBranch(nil, n.level, n.lo, n.bitmap, n.children), nil
		}
		return nil, chunkstore.ErrCorrupt
	})
}

func FuzzSegment(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		s, err := DecodeSegment(p)
		if err != nil {
			return nil, err
		}
		return s.Encode(), nil
	})
}

func FuzzRoot(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		r, err := DecodeRoot(p)
		return r.Encode(), err
	})
}

func FuzzInode(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		r, err := DecodeRecord(7, p)
		if err != nil {
			return nil, err
		}
		if len(r.XattrChunks) > 0 {
			return p, nil // the list itself isn't here
		}
		return EncodeInode(newMemory(), &r.Inode)
	})
}

func FuzzDirent(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		d, err := DecodeDirent(Entry{Name: "n", Value: p})
		return DirEntry(d).Value, err
	})
}

func FuzzXattrs(f *testing.F) {
	fuzz(f, func(p []byte) ([]byte, error) {
		d := &decoder{p: p}
		xs := d.xattrs()
		if err := d.end(); err != nil {
			return nil, err
		}
		m := newMemory()
		q, err := appendXattrs(nil, m, xs)
		if err != nil || len(q) == 0 {
			return nil, err
		}
		if q[0] == xattrInline {
			return q[1:], nil
		}
		return p, nil
	})
}
