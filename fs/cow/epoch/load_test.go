package epoch

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"graphvol/index"
)

// files makes an epoch with every kind of record and returns its files, cut behind the first segment.
func files(t testing.TB) (bits, names []byte) {
	t.Helper()
	dir := t.TempDir()
	e, err := Create(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	i := e.Inode(10, 11)
	i.MarkBlocks(5, 2)
	i.MarkBlocks(5000, 3)
	i.MarkBlocks(slotBlocks*8, slotBlocks*4)
	i.MarkAttr()
	i.SetIdent(index.Ident{Valid: true, Gen: 11, Size: 1 << 20, CtimeSec: 1_700_000_000, CtimeNsec: 5, BtimeSec: 1_600_000_000})
	i.SetHint(2, "data.db")
	d := e.Inode(2, 3)
	d.MarkName("data.db")
	o := e.Inode(12, 13)
	o.MarkBlocks(6, 1)
	o.MarkBlocks(9000, 1)
	o.MarkBlocks(slotBlocks*8, slotBlocks*4)
	o.MarkName("old")
	e.Close()
	if bits, err = os.ReadFile(bitsPath(dir, 2)); err != nil {
		t.Fatal(err)
	}
	if names, err = os.ReadFile(namesPath(dir, 2)); err != nil {
		t.Fatal(err)
	}
	return bits, names
}

func writeFiles(t testing.TB, bits, names []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := errors.Join(os.WriteFile(bitsPath(dir, 2), bits, 0o600), os.WriteFile(namesPath(dir, 2), names, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// use calls everything that reads marks, and makes some.
func use(e *Epoch) {
	for i := range e.All {
		i.Blocks(0, 1<<40)
		i.Dirty(70, 1<<40)
		i.HasName("data.db")
		i.Hint()
		i.Ident()
		i.Count()
	}
	for range e.Encode() {
	}
	for ino := range uint64(20) {
		i := e.Inode(ino, 1)
		i.MarkBlocks(0, 3*slotBlocks)
		i.MarkName("new")
		i.SetHint(1, "new")
	}
}

// Whatever a byte of the files turns into, Load doesn't panic; it refuses, counts damage, or the byte was no identity
// of a record. No mark of an undamaged record is lost.
func TestDamagedByte(t *testing.T) {
	bits, names := files(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	// Only what is written matters, and a bit behind: less than 2 KiB of the bits and 200 bytes of the names.
	for off := r.IntN(4); off < 2200; off += 4 {
		b, n := bytes.Clone(bits), bytes.Clone(names)
		f, off := b, off
		if off >= 2000 {
			f, off = n, off-2000
		}
		f[off] ^= 1 << r.IntN(8)
		e, err := Load(writeFiles(t, b, n), 2)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("byte %d: %v", off, err)
			}
			continue
		}
		use(e)
		e.Close()
	}
}

func TestTorn(t *testing.T) {
	bits, names := files(t)
	e, err := Load(writeFiles(t, bits, names), 2)
	if err != nil {
		t.Fatal(err)
	}
	end, namesEnd := e.bits.mu.pos, e.names.mu.pos
	e.Close()

	// A slot of which all but the kind is written, and a name of which only a part is.
	s := (*slotRec)(unsafe.Pointer(&bits[end]))
	s.ino, s.slot, s.sum = 10, 99, 12345
	copy(names[namesEnd+nameHead:], "unfinis")
	*(*uint32)(unsafe.Pointer(&names[namesEnd])) = uint32(kindUnfinished)<<16 | 10
	dir := writeFiles(t, bits, names)
	if e, err = Load(dir, 2); err != nil || e.Damaged() != 0 {
		t.Fatal(err, e.Damaged())
	}
	e.Inode(10, 11).MarkBlocks(99*slotBlocks, 1)
	e.Inode(2, 3).MarkName("finished")
	e.Close()
	if e, err = Load(dir, 2); err != nil || e.Damaged() != 0 {
		t.Fatal(err, e.Damaged())
	}
	if i := e.Find(10); !i.Blocks(99*slotBlocks, 1) || i.Blocks(99*slotBlocks, 2) || !i.Blocks(5000, 3) || !e.Find(2).HasName("finished") {
		t.Fatal("a mark made behind the torn record isn't there")
	}
	if m := e.Find(12); !m.Blocks(6, 1) || !m.Dirty(6, 1) || !m.Dirty(9000, 1) || !m.DirtyName("old") || !m.HasName("old") {
		t.Fatal("the marks of another inode aren't what they were")
	}
	e.Close()
}

func TestRefused(t *testing.T) {
	bits, names := files(t)
	newer := bytes.Clone(bits)
	newer[8] = FormatVersion + 1
	if _, err := Load(writeFiles(t, newer, names), 2); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer version: %v", err)
	}
	for what, b := range map[string][]byte{"empty": nil, "short": bits[:50], "half a segment": bits[:4096], "names": names} {
		if _, err := Load(writeFiles(t, b, names), 2); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	dir := writeFiles(t, bits, names)
	if err := os.Rename(namesPath(dir, 2), filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, 2); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no names: %v", err)
	}
	if err := os.Rename(bitsPath(dir, 2), bitsPath(dir, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, 3); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another epoch's file: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	bits, names := files(f)
	f.Add(bits[headerLen:4096], names[headerLen:1024])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, b, n []byte) {
		bits, names := bytes.Clone(bits), bytes.Clone(names)
		copy(bits[headerLen:], b)
		copy(names[headerLen:], n)
		e, err := Load(writeFiles(t, bits, names), 2)
		if err != nil {
			t.Fatalf("with good headers: %v", err)
		}
		use(e)
		if err := e.Remove(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDeleteRests: an epoch without bits has never begun, or was being deleted.
func TestDeleteRests(t *testing.T) {
	dir := t.TempDir()
	e, err := Create(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.names", "4.names", "4.bits.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := DeleteRests(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{bitsPath(dir, 3), namesPath(dir, 3)}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %q, %v; want %q", left, err, want)
	}
}
