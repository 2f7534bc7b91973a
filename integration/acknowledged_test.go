package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// An ackWriter counts up in a file. After do(i) has returned, i is acknowledged; read finds in a snapshot the last i of
// an unbroken row that ends with what was acknowledged at the latest, and fails where something older is missing.
type ackWriter struct {
	name string
	do   func(i uint64) error
	read func(dir string, acked uint64) (uint64, error)

	returned atomic.Uint64
}

const recordSize = 64

func record(i uint64) []byte {
	p := make([]byte, recordSize)
	for at := 0; at < recordSize; at += 16 {
		binary.LittleEndian.PutUint64(p[at:], i)
		binary.LittleEndian.PutUint64(p[at+8:], ^i)
	}
	return p
}

// readRecord returns the record's number, or 0 if there is none at off.
func readRecord(f *os.File, off int64) uint64 {
	p := make([]byte, recordSize)
	if _, err := f.ReadAt(p, off); err != nil {
		return 0
	}
	return parseRecord(p)
}

func parseRecord(p []byte) uint64 {
	i := binary.LittleEndian.Uint64(p)
	for at := 0; at < recordSize; at += 16 {
		if binary.LittleEndian.Uint64(p[at:]) != i || binary.LittleEndian.Uint64(p[at+8:]) != ^i {
			return 0
		}
	}
	return i
}

// readLog finds the end of a row of records 1, 2, 3, …
func readLog(path string, acked uint64) (uint64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	i := uint64(0)
	for ; uint64(len(raw)) >= (i+1)*recordSize && parseRecord(raw[i*recordSize:][:recordSize]) == i+1; i++ {
	}
	if i < acked {
		return i, fmt.Errorf("record %d is missing, %d were acknowledged", i+1, acked)
	}
	return i, nil
}

// syncedLog appends record i, synced.
func syncedLog(f *os.File) func(uint64) error {
	return func(i uint64) error {
		if _, err := f.WriteAt(record(i), int64(i-1)*recordSize); err != nil {
			return err
		}
		return f.Sync()
	}
}

// ring writes record i to place i%ringSize; a returned write is acknowledged.
func ring(f *os.File) func(uint64) error {
	return func(i uint64) error {
		_, err := f.WriteAt(record(i), int64(i%ringSize)*recordSize)
		return err
	}
}

// hot overwrites one record again and again: its block needs a preimage in every snapshot.
func hot(f *os.File) func(uint64) error {
	return func(i uint64) error {
		_, err := f.WriteAt(record(i), 3*blockBytes)
		return err
	}
}

func readHot(path string, acked uint64) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	i := readRecord(f, 3*blockBytes)
	if i < acked {
		return i, fmt.Errorf("holds record %d, %d was acknowledged", i, acked)
	}
	return i, nil
}

const (
	blockBytes = 4096
	mapPages   = 256
	ringSize   = 1 << 15
)

// mapped stores record i in page i%mapPages of a shared mapping; a returned msync acknowledges.
func mapped(m []byte) func(uint64) error {
	return func(i uint64) error {
		page := m[i%mapPages*blockBytes:][:blockBytes]
		copy(page, record(i))
		return unix.Msync(page, unix.MS_SYNC)
	}
}

func readMapped(path string, acked uint64) (uint64, error) {
	return readRing(path, acked, mapPages, blockBytes)
}

func readPwrite(path string, acked uint64) (uint64, error) {
	return readRing(path, acked, ringSize, recordSize)
}

// readRing looks at each of the places: its newest acknowledged record, or a newer one, must be there.
func readRing(path string, acked, places uint64, stride int) (uint64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	for place := range places {
		got := uint64(0)
		if at := int(place) * stride; at+recordSize <= len(raw) {
			got = parseRecord(raw[at : at+recordSize])
		}
		behind := (acked + places - place) % places
		if behind < acked && got < acked-behind {
			return 0, fmt.Errorf("place %d holds record %d, %d was acknowledged", place, got, acked-behind)
		}
		last = max(last, got)
	}
	return last, nil
}

// replaced writes a new file and renames it over the old one, as many programs save.
func replaced(dir string) func(uint64) error {
	return func(i uint64) error {
		tmp := filepath.Join(dir, fmt.Sprintf("tmp.%d", i%3))
		f, err := os.Create(tmp)
		if err != nil {
			return err
		}
		_, err = f.Write(record(i))
		err = errors.Join(err, f.Sync(), f.Close())
		if err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(dir, "replaced"))
	}
}

func readReplaced(path string, acked uint64) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	i := readRecord(f, 0)
	if i < acked {
		return i, fmt.Errorf("holds record %d, %d was acknowledged", i, acked)
	}
	return i, nil
}

func ackWriters(t *testing.T, dir string) []*ackWriter {
	t.Helper()
	file := func(name string, size int64) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	m, err := unix.Mmap(int(file("mapped", mapPages*blockBytes).Fd()), 0, mapPages*blockBytes,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	return []*ackWriter{
		{name: "pwrite", do: ring(file("pwrite", 0)), read: readPwrite},
		{name: "fsync", do: syncedLog(file("fsync", 0)), read: readLog},
		{name: "hot", do: hot(file("hot", 8*blockBytes)), read: readHot},
		{name: "mapped", do: mapped(m), read: readMapped},
		{name: "replaced", do: replaced(dir), read: readReplaced},
	}
}

func (w *ackWriter) run(ctx context.Context) error {
	for i := uint64(1); ctx.Err() == nil; i++ {
		if err := w.do(i); err != nil {
			return fmt.Errorf("%s, record %d: %w", w.name, i, err)
		}
		w.returned.Store(i)
	}
	return nil
}

func TestAcknowledgedPlain(t *testing.T) {
	p := plain{t.TempDir()}
	if err := os.Mkdir(p.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	writers := ackWriters(t, p.dir())
	testAcknowledged(t, p, writers[:len(writers)-1], 3) // cp fails where files are renamed under it
}

func TestAcknowledgedWriteback(t *testing.T) {
	v := rig.Mounted(t, volume.Options{Cache: "writeback"})
	testAcknowledged(t, mount{v, false}, ackWriters(t, v.Mount), 12)
}

func TestAcknowledgedThrough(t *testing.T) {
	v := rig.Mounted(t, volume.Options{Cache: "through"})
	testAcknowledged(t, mount{v, false}, ackWriters(t, v.Mount), 12)
}

// testAcknowledged: what was acknowledged when a snapshot was asked for is in it; what was written after the command
// returned is not; and a snapshot reads the same later, also after the server was killed.
func testAcknowledged(t *testing.T, tgt target, writers []*ackWriter, snapshots int) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	errs := make([]error, len(writers))
	var wg sync.WaitGroup
	for i, w := range writers {
		wg.Go(func() { errs[i] = w.run(ctx) })
	}
	first := map[string][]uint64{}
	deadline := time.Now().Add(*modelDuration)
	for i := 0; i < snapshots || time.Now().Before(deadline); i++ {
		if i%4 == 3 {
			if err := tgt.disturb(ctx); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprintf("a%d", i)
		first[name] = takeAcknowledged(t, tgt, name, writers)
		if i > 0 {
			older := fmt.Sprintf("a%d", i/2)
			if again := readAll(t, tgt, older, writers, nil); !slices.Equal(again, first[older]) {
				t.Errorf("snapshot %s reads %v, and read %v at first", older, again, first[older])
			}
		}
	}
	stop()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func takeAcknowledged(t *testing.T, tgt target, name string, writers []*ackWriter) []uint64 {
	t.Helper()
	acked := make([]uint64, len(writers))
	for i, w := range writers {
		acked[i] = w.returned.Load()
	}
	err := tgt.snapshot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	after := make([]uint64, len(writers))
	for i, w := range writers {
		after[i] = w.returned.Load()
	}
	if err := tgt.ready(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, tgt, name, writers, acked)
	for i, w := range writers {
		if got[i] > after[i]+1 {
			t.Errorf("snapshot %s, %s: holds record %d, but only %d had been written when the command returned", name, w.name,
				got[i], after[i]+1)
		}
	}
	return got
}

func readAll(t *testing.T, tgt target, name string, writers []*ackWriter, acked []uint64) []uint64 {
	t.Helper()
	got := make([]uint64, len(writers))
	for i, w := range writers {
		least := uint64(0)
		if acked != nil {
			least = acked[i]
		}
		var err error
		got[i], err = w.read(filepath.Join(tgt.snapshotDir(name), w.name), least)
		if err != nil && !(least == 0 && errors.Is(err, os.ErrNotExist)) {
			t.Errorf("snapshot %s, %s: %v", name, w.name, err)
		}
	}
	return got
}
