package index

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"graphvol/chunkstore"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func goldenSnapshot() *Snapshot {
	return &Snapshot{
		ID: "01jgh4n3z0aaaaaaaaaaaaaaaa", Name: "nightly", Seq: 7, Parent: "01jgh4n3z0bbbbbbbbbbbbbbbb", Kind: KindIncremental,
		State: StateComplete, Created: time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC), PauseNS: 1_500_000, SealNS: 2_000_000_000,
		Files: 10, Bytes: 1 << 30, DirtyBytes: 4096, StoredBytes: 2000, Root: chunkstore.Sum(nil), ManifestSHA256: "ab", Epoch: 3,
	}
}

func goldenDirty() *Dirty {
	return &Dirty{
		Ino: 12, Gen: 300, Flags: DirtyAttr | DirtyRemoved, Parent: 2, Name: "data.db", Names: []string{"a", "bc"},
		Blocks: roaring.BitmapOf(1, 2, 70000),
		Ident:  Ident{Valid: true, Gen: 300, Size: 8192, CtimeSec: 1_700_000_000, CtimeNsec: 5, BtimeSec: -1, BtimeNsec: 6},
	}
}

// TestGolden fails when the stored form changes: then the format's version must change too.
func TestGolden(t *testing.T) {
	snap, err := encodeSnapshot(goldenSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	dirty, err := encodeDirty(nil, goldenDirty())
	if err != nil {
		t.Fatal(err)
	}
	loc := appendLocation(nil, 300, chunkstore.Location{Offset: 16, Length: 70000, RawLen: 131072})
	frame := encodeIntentFrame(9, []Intent{{Kind: IntentRegion, Ino: 5, Gen: 6, Region: 7}, {Kind: IntentAllDirs}})
	var out strings.Builder
	for _, part := range []struct {
		what string
		p    []byte
	}{
		{"record of a snapshot: version, JSON, CRC-32C", snap},
		{"record of a Dirty: version, gen, flags, parent, name, ident, names, blocks, CRC-32C", dirty},
		{"row of a chunk: pack's number, offset, length, raw length", loc},
		{"frame of intents: CRC-32C, count, epoch, two intents (the first 64 bytes)", frame[:64]},
	} {
		fmt.Fprintf(&out, "# %s\n%s\n", part.what, hex.Dump(part.p))
	}
	path := filepath.Join("testdata", "golden.txt")
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the stored form is another than in %s:\n%s", path, out.String())
	}
	if s, err := decodeSnapshot(snap); err != nil || !reflect.DeepEqual(s, *goldenSnapshot()) {
		t.Errorf("%+v %v", s, err)
	}
	if d, err := decodeDirty(12, dirty); err != nil || !sameDirty(d, goldenDirty()) {
		t.Errorf("%+v %v", d, err)
	}
}

func TestRecordsAreChecked(t *testing.T) {
	rec, err := encodeDirty(nil, goldenDirty())
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(rec) * 8 {
		bad := bytes.Clone(rec)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := decodeDirty(12, bad); err == nil {
			t.Fatalf("bit %d is another and nobody sees it", i)
		}
	}
	for i := range rec {
		if _, err := decodeDirty(12, rec[:i]); err == nil {
			t.Fatalf("cut to %d bytes and nobody sees it", i)
		}
	}
	newer := frame(append([]byte{dirtyVersion + 1}, "whatever"...))
	if _, err := decodeDirty(12, newer); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer record: %v", err)
	}
}

// The fuzz tests begin behind the checksum, which would keep all damage away.

func FuzzDirty(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		rec, err := encodeDirty(nil, randomDirty(r, 1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(rec[1 : len(rec)-4])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		d, err := decodeDirtyPayload(1, p)
		if err != nil {
			return
		}
		rec, err := encodeDirty(nil, d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeDirty(1, rec)
		if err != nil {
			t.Fatal(err)
		}
		if back.Blocks == nil {
			back.Blocks = roaring.New()
		}
		if d.Blocks == nil {
			d.Blocks = roaring.New()
		}
		if !sameDirty(d, back) {
			t.Fatalf("%+v became %+v", d, back)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	rec, err := encodeSnapshot(goldenSnapshot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec[1 : len(rec)-4])
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := decodeSnapshotPayload(p)
		if err != nil {
			return
		}
		rec, err := encodeSnapshot(&s)
		if err != nil {
			return // a time that JSON can't say
		}
		if back, err := decodeSnapshot(rec); err != nil || !back.Created.Equal(s.Created) {
			t.Fatalf("%+v became %+v: %v", s, back, err)
		}
	})
}

func FuzzSmallDecoders(f *testing.F) {
	f.Add(appendLocation(nil, 300, chunkstore.Location{Offset: 16, Length: 70000, RawLen: 131072}))
	f.Add(encodeIntentFrame(9, []Intent{{Kind: IntentRegion, Ino: 5}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		if num, loc, err := decodeLocation(p); err == nil {
			if num2, loc2, err := decodeLocation(appendLocation(nil, num, loc)); err != nil || num2 != num || loc2 != loc {
				t.Fatalf("%d %v became %d %v: %v", num, loc, num2, loc2, err)
			}
		}
		_, _, _, _ = decodePack(p, p)
		if o, err := decodeRemoteObject(nil, frameRemote(nil, p)); err == nil {
			if o2, err := decodeRemoteObject(nil, encodeRemoteObject(nil, &o)); err != nil || o2 != o {
				t.Fatalf("%+v became %+v: %v", o, o2, err)
			}
		}
		_ = checkIntentHeader(p)
		if len(p) == intentFrame {
			copy(p, binary32(checksum(p[4:])))
		}
		if epoch, in, err := decodeIntentFrame(p); err == nil && epoch != 0 {
			if e2, in2, err := decodeIntentFrame(encodeIntentFrame(epoch, in)); err != nil || e2 != epoch || len(in2) != len(in) {
				t.Fatalf("%d %v became %d %v: %v", epoch, in, e2, in2, err)
			}
		}
	})
}
