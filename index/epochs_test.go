package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

func randomDirty(r *rand.Rand, ino uint64) *Dirty {
	d := &Dirty{Ino: ino, Gen: r.Uint64() >> r.IntN(64), Flags: DirtyFlags(r.IntN(32)), Parent: r.Uint64() >> r.IntN(64)}
	if r.IntN(2) == 0 {
		d.Name = fmt.Sprintf("file %d\xff\x00", r.IntN(100))
	}
	for i := range r.IntN(4) {
		d.Names = append(d.Names, fmt.Sprintf("name-%d-%d", i, r.IntN(1000)))
	}
	if r.IntN(2) == 0 {
		d.Ident = Ident{
			Valid: true, Gen: r.Uint64(), Size: r.Int64(), CtimeSec: -r.Int64(), CtimeNsec: r.Uint32(), BtimeSec: r.Int64(), BtimeNsec: r.Uint32(),
		}
	}
	if r.IntN(3) > 0 {
		d.Blocks = roaring.New()
		for range 1 + r.IntN(50) {
			first := uint64(r.Uint32() >> r.IntN(32))
			d.Blocks.AddRange(first, min(1<<32, first+r.Uint64N(3000)+1))
		}
		d.Blocks.RunOptimize()
	}
	return d
}

func sameDirty(a, b *Dirty) bool {
	x, y := *a, *b
	x.Blocks, y.Blocks = nil, nil
	if (a.Blocks == nil) != (b.Blocks == nil) || a.Blocks != nil && !a.Blocks.Equals(b.Blocks) {
		return false
	}
	return reflect.DeepEqual(x, y)
}

func loadEpoch(t *testing.T, db *DB, n uint64) (all []*Dirty) {
	t.Helper()
	if err := db.LoadEpoch(n, func(d *Dirty) error { all = append(all, d); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEpochs(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	want := map[uint64][]*Dirty{300: nil, 2: nil, 1 << 50: nil}
	for n := range want {
		for ino := range uint64(2*epochBatch + 3) {
			want[n] = append(want[n], randomDirty(r, ino*ino*3))
		}
		shuffled := slices.Clone(want[n])
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for range 2 { // the second replaces the first
			if err := db.PutEpoch(n, slices.Values(shuffled)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.PutEpoch(5, slices.Values([]*Dirty(nil))); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if all, err := db.Epochs(); err != nil || !slices.Equal(all, []uint64{2, 5, 300, 1 << 50}) {
		t.Fatal(all, err)
	}
	for n := range want {
		if got := loadEpoch(t, db, n); !slices.EqualFunc(got, want[n], sameDirty) {
			t.Fatalf("epoch %d is another", n)
		}
	}
	if got := loadEpoch(t, db, 5); len(got) != 0 {
		t.Fatal(got)
	}
	if err := errors.Join(db.DropEpochs(300), db.DropEpochs(300)); err != nil {
		t.Fatal(err)
	}
	if err := db.LoadEpoch(300, nil); !errors.Is(err, ErrNotFound) {
		t.Fatalf("loaded a dropped epoch: %v", err)
	}
	boom := errors.New("boom")
	if err := db.LoadEpoch(2, func(*Dirty) error { return boom }); err != boom {
		t.Fatal(err)
	}
	twice := []*Dirty{{Ino: 1}, {Ino: 1}}
	if err := db.PutEpoch(2, slices.Values(twice)); err == nil || len(loadEpoch(t, db, 2)) != len(want[2]) {
		t.Fatal("an inode twice is stored, or the old map is lost:", err)
	}
}
