package backing

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"graphvol/internal/mapped"
)

// RecordVersion is the version of the node table's records that this software writes and reads.
const RecordVersion = 1

const (
	segmentSize = 4 << 20
	recordHead  = 56
)

// record is the head of a record in the mapping; the name follows it. Its mutable fields are guarded by the node's lock.
// A record that has no place in the table lives on the heap, with its name beside it.
type record struct {
	length, sum      uint32
	ino, gen, parent uint64
	nlookup          uint64
	readers, writers uint32
	typ              uint32
	nameLen          uint16
	dead, version    uint8
}

var _ = [1]struct{}{}[unsafe.Sizeof(record{})-recordHead]

func (r *record) name() string {
	return string(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(r), recordHead)), r.nameLen))
}

func (r *record) is(l link) bool { return r.parent == l.parent && r.name() == l.name }

func (r *record) checksum() uint32 {
	b := unsafe.Slice((*byte)(unsafe.Pointer(r)), recordHead)
	c := crc32.Checksum(b[8:32], castagnoli)
	c = crc32.Update(c, castagnoli, b[48:54])
	return crc32.Update(c, castagnoli, []byte(r.name()))
}

func (r *record) whole() bool { return r.version == RecordVersion && r.sum == r.checksum() }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func recordSize(name int) int { return (recordHead + name + 7) &^ 7 }

// segment is one file of the table.
type segment struct {
	path string
	mem  []byte
	used int
	live int // bytes of records that aren't dead
}

// table is the node table. Its lock is the innermost one.
type table struct {
	dir string
	log *slog.Logger

	grown atomic.Bool // a segment was added since somebody looked
	mem   mapped.Memory

	mu     sync.Mutex
	segs   []*segment // the last one is written to; guarded by mu
	seq    int
	broken bool // the last attempt to allocate failed
}

func openTable(dir string, log *slog.Logger) (*table, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node table: %w", err)
	}
	return &table{dir: dir, log: log}, nil
}

// add writes a record that supersedes old (which may be nil) and inherits its counts.
func (tb *table) add(ino, gen uint64, l link, typ uint32, old *record) *record {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	size := recordSize(len(l.name))
	r, seg := tb.spaceLocked(size)
	if r == nil {
		b := make([]uint64, size/8)
		r = (*record)(unsafe.Pointer(&b[0]))
	}
	tb.store(func() {
		r.ino, r.gen, r.parent, r.typ, r.nameLen, r.version = ino, gen, l.parent, typ, uint16(len(l.name)), RecordVersion
		copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(r), recordHead)), len(l.name)), l.name)
		if old != nil {
			r.nlookup, r.readers, r.writers = old.nlookup, old.readers, old.writers
		}
		r.sum = r.checksum()
		r.length = uint32(size) // last: now the record exists
	})
	if seg != nil {
		seg.live += size
	}
	tb.killLocked(old)
	return r
}

// store runs fn, which stores to records. Where the disk below the table fails, they are in memory only from then on.
func (tb *table) store(fn func()) {
	if tb.mem.Do(fn) {
		tb.log.Error("node table: the disk below it fails, so it goes on in memory: after a restart of the server, files that are open now may be stale")
	}
}

// spaceLocked finds room in the last segment or in a new one. nil: there is none.
func (tb *table) spaceLocked(size int) (*record, *segment) {
	if len(tb.segs) > 0 {
		s := tb.segs[len(tb.segs)-1]
		if s.used+size <= segmentSize {
			r := (*record)(unsafe.Pointer(&s.mem[s.used]))
			s.used += size
			return r, s
		}
	}
	s, err := tb.newSegmentLocked()
	if err != nil {
		if !tb.broken {
			tb.log.Warn("node table can't grow: after a restart of the server, files opened from now on may be stale; free space beside the volume", "err", err)
		}
		tb.broken = true
		return nil, nil
	}
	tb.broken = false
	tb.grown.Store(true)
	tb.segs = append(tb.segs, s)
	s.used = size
	return (*record)(unsafe.Pointer(&s.mem[0])), s
}

func (tb *table) newSegmentLocked() (*segment, error) {
	tb.seq++
	path := filepath.Join(tb.dir, fmt.Sprintf("%08d", tb.seq))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err = allocate(f, segmentSize); err == nil {
		var s *segment
		if s, err = tb.mapSegment(f); err == nil {
			return s, nil
		}
	}
	os.Remove(path)
	return nil, err
}

func (tb *table) mapSegment(f *os.File) (*segment, error) {
	mem, err := tb.mem.Map(f, 0, segmentSize)
	if err != nil {
		return nil, err
	}
	return &segment{path: f.Name(), mem: mem}, nil
}

// allocate gives f real blocks, so that storing to its mapping never finds the disk full.
func allocate(f *os.File, size int64) error {
	err := eintr(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	_, err = f.Write(make([]byte, size))
	return err
}

// kill marks a record as superseded or dropped.
func (tb *table) kill(r *record) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.killLocked(r)
}

func (tb *table) killLocked(r *record) {
	if r == nil || r.dead != 0 {
		return
	}
	tb.store(func() { r.dead = 1 })
	if s := tb.segmentOfLocked(r); s != nil {
		s.live -= int(r.length)
	}
}

func (tb *table) segmentOfLocked(r *record) *segment {
	p := uintptr(unsafe.Pointer(r))
	for _, s := range tb.segs {
		if base := uintptr(unsafe.Pointer(&s.mem[0])); p >= base && p < base+segmentSize {
			return s
		}
	}
	return nil
}

// sparse returns a full segment that is mostly dead while the table is more than twice as large as what lives in it; nil: none.
func (tb *table) sparse() *segment {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if len(tb.segs) < 4 {
		return nil
	}
	live, best := 0, tb.segs[0]
	for _, s := range tb.segs[:len(tb.segs)-1] {
		live += s.live
		if s.live < best.live {
			best = s
		}
	}
	if live*2 > (len(tb.segs)-1)*segmentSize {
		return nil
	}
	return best
}

// living lists the inode numbers of a segment's records that aren't dead; some may come twice.
func (tb *table) living(s *segment) []uint64 {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	var inos []uint64
	s.records(func(r *record) { inos = append(inos, r.ino) })
	return inos
}

// remove deletes a segment that nothing points into any more.
func (tb *table) remove(s *segment) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for i, x := range tb.segs {
		if x == s {
			tb.segs = append(tb.segs[:i], tb.segs[i+1:]...)
			break
		}
	}
	os.Remove(s.path)
	tb.mem.Unmap(s.mem)
}

// records calls fn for every record of s that isn't dead.
func (s *segment) records(fn func(*record)) {
	s.each(func(r *record) {
		if r.dead == 0 && r.whole() {
			fn(r)
		}
	})
}

// each calls fn for every record, whole or not, and returns where they end.
func (s *segment) each(fn func(*record)) (end int) {
	off := 0
	for off+recordHead <= len(s.mem) {
		r := (*record)(unsafe.Pointer(&s.mem[off]))
		size := int(r.length)
		if size < recordHead || size%8 != 0 || off+size > len(s.mem) || recordSize(int(r.nameLen)) != size {
			break
		}
		fn(r)
		off += size
	}
	return off
}

// stored is what an earlier process left about an inode.
type stored struct {
	ino, gen, nlookup uint64
	l                 link
	typ               uint32
	readers, writers  uint32
}

// load reads the segments of an earlier process, oldest first, and returns a function that removes them. Damaged ends are left out.
func (tb *table) load() (all []stored, remove func()) {
	names := tb.files()
	for _, path := range names {
		mem, err := os.ReadFile(path)
		if err != nil {
			tb.log.Warn("node table: a segment can't be read", "path", path, "err", err)
			continue
		}
		all = append(all, decode(mem)...)
	}
	return all, func() {
		for _, path := range names {
			os.Remove(path)
		}
	}
}

// files lists the segments of an earlier process, oldest first. New ones are numbered behind them.
func (tb *table) files() []string {
	names, _ := filepath.Glob(filepath.Join(tb.dir, "[0-9]*"))
	sort.Strings(names)
	for _, path := range names {
		if n, err := strconv.Atoi(filepath.Base(path)); err == nil {
			tb.seq = max(tb.seq, n)
		}
	}
	return names
}

// decode returns the living records of a segment's bytes.
func decode(mem []byte) []stored {
	buf := make([]uint64, (len(mem)+7)/8) // aligned
	if len(buf) == 0 {
		return nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(buf)*8)
	copy(b, mem)
	var all []stored
	(&segment{mem: b}).records(func(r *record) {
		all = append(all, stored{r.ino, r.gen, r.nlookup, link{r.parent, r.name()}, r.typ, r.readers, r.writers})
	})
	return all
}

func (tb *table) close() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.mem.UnmapAll()
	tb.segs = nil
}

// holds says whether r lives in s.
func (tb *table) holds(s *segment, r *record) bool {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.segmentOfLocked(r) == s
}
