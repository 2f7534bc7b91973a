package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

// TestFlipEveryByte changes each byte of a pack in turn: VerifyPack must see it, Get must not serve it.
func TestFlipEveryByte(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	chunks := [][]byte{[]byte("raw"), bytes.Repeat([]byte("compressed "), 40), {}, randomChunk(newRand(1), 700)}
	pack := f.store(t, chunks...).Packs[0].ID
	located, err := f.ReadTrailer(t.Context(), pack)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.packPath(pack))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		f.overwrite(t, pack, bad)
		err := f.VerifyPack(t.Context(), pack)
		var ce *CorruptError
		if !errors.Is(err, ErrCorrupt) || !errors.As(err, &ce) || ce.Pack != pack {
			t.Fatalf("byte %d: verify says %v", i, err)
		}
		if err := f.VerifyObject(t.Context(), pack, target.Bytes(bad)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d, elsewhere: verify says %v", i, err)
		}
		f.checkServed(t, chunks, located, i)
	}
	if err := f.VerifyObject(t.Context(), pack, target.Bytes(good)); err != nil {
		t.Error(err)
	}
	f.overwrite(t, pack, good)
	f.check(t)
}

// TestPutBack: a pack that is put in the place of a damaged one is read from then on, also by those who had that open, and its chunks are trusted again.
func TestPutBack(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	w := f.store(t, []byte("raw"), randomChunk(newRand(1), 700))
	pack := w.Packs[0].ID
	good, err := os.ReadFile(f.packPath(pack))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[headerLen+recordHeader] ^= 1
	f.overwrite(t, pack, bad)
	if err := f.VerifyPack(t.Context(), pack); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("verify says %v", err)
	}
	if err := f.PutBack(t.Context(), pack, bytes.NewReader(bad)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("putting back a damaged one: %v", err)
	}
	if err := f.PutBack(t.Context(), pack, bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range w.Chunks {
		if _, err := f.Get(t.Context(), c.ID, nil); err != nil || f.bad.has(c.ID) {
			t.Errorf("chunk %s: %v, distrusted: %v", c.ID, err, f.bad.has(c.ID))
		}
	}
}

func (f *fixture) overwrite(t *testing.T, pack PackID, data []byte) {
	t.Helper()
	if err := os.WriteFile(f.packPath(pack), data, 0o600); err != nil {
		t.Fatal(err)
	}
	f.packs.drop(pack)
}

// checkServed reads all chunks of a pack whose byte i is damaged.
func (f *fixture) checkServed(t *testing.T, chunks [][]byte, located []Located, i int) {
	t.Helper()
	for k, want := range chunks {
		l := located[k]
		got, err := f.Get(t.Context(), l.ID, nil)
		hit := i >= int(l.Offset) && i < int(l.Offset+l.Length)
		var ce *CorruptError
		switch {
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("byte %d: chunk %d is served with wrong bytes", i, k)
		case err == nil && hit:
			t.Fatalf("byte %d: chunk %d is served from a damaged record", i, k)
		case hit && (!errors.As(err, &ce) || ce.Pack != l.Pack || ce.Offset != l.Offset || ce.Chunk != l.ID):
			t.Fatalf("byte %d: the error doesn't name pack, offset and chunk: %v", i, err)
		case err != nil && !hit && i >= headerLen:
			t.Fatalf("byte %d: chunk %d isn't damaged, but: %v", i, k, err)
		}
	}
}

func TestCutOff(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	pack := f.store(t, randomChunk(newRand(1), 700), []byte("b")).Packs[0].ID
	good, err := os.ReadFile(f.packPath(pack))
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		f.overwrite(t, pack, good[:n])
		if err := f.VerifyPack(t.Context(), pack); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if err := os.Remove(f.packPath(pack)); err != nil {
		t.Fatal(err)
	}
	f.packs.drop(pack)
	if _, err := f.Get(t.Context(), Sum([]byte("b")), nil); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing pack: %v", err)
	}
}

func TestVerifyNamesEachDamage(t *testing.T) {
	f := newFixture(t, Options{Workers: 1})
	pack := f.store(t, []byte("one"), []byte("two"), []byte("three")).Packs[0].ID
	located, err := f.ReadTrailer(t.Context(), pack)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.packPath(pack))
	if err != nil {
		t.Fatal(err)
	}
	data[located[0].Offset+recordHeader]++
	data[located[2].Offset+recordHeader]++
	f.overwrite(t, pack, data)
	msg := f.VerifyPack(t.Context(), pack).Error()
	for i, l := range located {
		if strings.Contains(msg, l.ID.String()) != (i != 1) {
			t.Errorf("chunk %d: %s", i, msg)
		}
	}
}

// faultTarget fails the operation number fail, counted from 0.
type faultTarget struct {
	target.Local
	ops  atomic.Int64
	fail int64
}

var errInjected = errors.New("injected")

func (f *faultTarget) step() error {
	if f.ops.Add(1)-1 == f.fail {
		return errInjected
	}
	return nil
}

// Put goes by way of Create.
func (f *faultTarget) Put(ctx context.Context, name string, src target.Source, _ target.PutOptions) error {
	return targettest.PutByUpload(ctx, f, name, src)
}

func (f *faultTarget) Create(ctx context.Context) (target.Upload, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	u, err := f.Local.Create(ctx)
	return &faultUpload{u, f}, err
}

type faultUpload struct {
	target.Upload
	f *faultTarget
}

func (u *faultUpload) Write(p []byte) (int, error) {
	if err := u.f.step(); err != nil {
		return 0, err
	}
	return u.Upload.Write(p)
}

func (u *faultUpload) Commit(ctx context.Context, name string) error {
	if err := u.f.step(); err != nil {
		return errors.Join(err, u.Upload.Abort())
	}
	return u.Upload.Commit(ctx, name)
}

// TestFaultSweep fails the first, second, third, … operation until a seal succeeds. A failed one leaves nothing.
func TestFaultSweep(t *testing.T) {
	f := newFixture(t, Options{PackSize: 20 << 10})
	faults := &faultTarget{Local: f.target}
	f.target = faults
	for ; ; faults.fail++ {
		if faults.fail > 1000 {
			t.Fatal("no run succeeds")
		}
		faults.ops.Store(0)
		written, err := f.trySeal(t)
		if err == nil {
			f.loc.add(written.Chunks)
			break
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("operation %d failed: %v", faults.fail, err)
		}
		if packs, err := f.Packs(t.Context()); err != nil || len(packs) != 0 {
			t.Fatalf("operation %d failed: packs %v are left, %v", faults.fail, packs, err)
		}
	}
	if faults.fail < 10 {
		t.Errorf("only %d faults", faults.fail)
	}
	f.check(t)
}

func (f *fixture) trySeal(t *testing.T) (Written, error) {
	w := f.NewWriter(t.Context())
	defer w.Close()
	var putErr error
	for i := range 60 {
		if _, err := w.Put(randomChunk(newRand(uint64(i)), 3000)); err != nil {
			putErr = err
			break
		}
	}
	written, err := w.Finish()
	if putErr != nil && err == nil {
		t.Error("Put failed but Finish did not")
	}
	return written, err
}

func TestReadErrorIsDamage(t *testing.T) {
	f := newFixture(t, Options{})
	f.store(t, []byte("x"))
	f.packs.target = badReads{f.target, errInjected}
	_, err := f.Get(t.Context(), Sum([]byte("x")), nil)
	if !errors.Is(err, ErrCorrupt) || !errors.Is(err, errInjected) {
		t.Errorf("%v, want ErrCorrupt with its cause", err)
	}
}

// TestOutageIsNoDamage: that a target can't be reached, or denies access, doesn't make anybody store its chunks anew.
func TestOutageIsNoDamage(t *testing.T) {
	for _, outage := range []error{target.ErrUnavailable, target.ErrDenied, context.DeadlineExceeded} {
		f := newFixture(t, Options{})
		f.store(t, []byte("x"))
		f.packs.target = badReads{f.target, outage}
		id := Sum([]byte("x"))
		l, err := f.locate(id)
		if err != nil {
			t.Fatal(err)
		}
		_, getErr := f.Get(t.Context(), id, nil)
		_, trailerErr := f.ReadTrailer(t.Context(), l.Pack)
		for _, err := range []error{getErr, trailerErr, f.VerifyPack(t.Context(), l.Pack)} {
			if errors.Is(err, ErrCorrupt) || !errors.Is(err, outage) {
				t.Errorf("%v, want %v", err, outage)
			}
		}
		w := f.NewWriter(t.Context())
		if stored, err := w.stored(id); !stored || err != nil {
			t.Errorf("%v: the chunk counts as stored: %v, %v", outage, stored, err)
		}
		w.Close()
	}
}

// badReads is a target whose medium can't be read beyond the packs' headers.
type badReads struct {
	target.Local
	err error
}

func (b badReads) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := b.Local.Open(ctx, name)
	return badObject{o, b.err}, err
}

type badObject struct {
	target.Object
	err error
}

func (b badObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= headerLen {
		return 0, b.err
	}
	return b.Object.ReadAt(ctx, p, off)
}

var _ target.Object = badObject{}

// TestHealing puts a damaged chunk again: all who need it get it from its new place.
func TestHealing(t *testing.T) {
	for name, find := range map[string]func(f *fixture, pack PackID, id ID) error{
		"get":    func(f *fixture, _ PackID, id ID) error { _, err := f.Get(context.Background(), id, nil); return err },
		"verify": func(f *fixture, pack PackID, _ ID) error { return f.VerifyPack(context.Background(), pack) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{Workers: 1})
			p := []byte("to be damaged")
			pack := f.store(t, p).Packs[0].ID
			f.flip(t, pack, headerLen+recordHeader)
			if w := f.store(t, p); len(w.Chunks) != 0 {
				t.Fatal("stored again before anybody knew of the damage")
			}
			if err := find(f, pack, Sum(p)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("found %v", err)
			}
			w := f.NewWriter(t.Context())
			if ok, err := w.Has(Sum(p)); ok || err != nil {
				t.Errorf("a damaged chunk counts as stored: %v, %v", ok, err)
			}
			w.Close()
			f.store(t, p)
			if got, err := f.Get(t.Context(), Sum(p), nil); err != nil || !bytes.Equal(got, p) {
				t.Errorf("not healed: %v", err)
			}
			if w := f.store(t, p); len(w.Chunks) != 0 {
				t.Error("stored a third time")
			}
		})
	}
}

// TestBrokenPacksAreNotReliedUpon: what is in a pack that is missing, or damaged beside its records, is stored again though nobody has read
// it.
func TestBrokenPacksAreNotReliedUpon(t *testing.T) {
	for name, damage := range map[string]func(f *fixture, path string, pack PackID) error{
		"missing": func(_ *fixture, path string, _ PackID) error { return os.Remove(path) },
		"cut":     func(_ *fixture, path string, _ PackID) error { return os.Truncate(path, 70) },
		"header":  func(f *fixture, _ string, pack PackID) error { f.flip(t, pack, 3); return nil },
		"trailer": func(f *fixture, path string, pack PackID) error {
			f.flip(t, pack, len(readFile(t, path))-80)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{Workers: 1})
			p := []byte("in a pack that breaks")
			pack := f.store(t, p).Packs[0].ID
			if err := damage(f, f.packPath(pack), pack); err != nil {
				t.Fatal(err)
			}
			f.packs.drop(pack)
			w := f.NewWriter(t.Context())
			if ok, err := w.Has(Sum(p)); ok || err != nil {
				t.Errorf("it counts as stored: %v, %v", ok, err)
			}
			w.Close()
			if w := f.store(t, p); len(w.Chunks) != 1 {
				t.Error("not stored again")
			}
			if got, err := f.Get(t.Context(), Sum(p), nil); err != nil || !bytes.Equal(got, p) {
				t.Errorf("after it was: %q, %v", got, err)
			}
		})
	}
}
