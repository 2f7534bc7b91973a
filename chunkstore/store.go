package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"graphvol/chunkstore/target"
)

// Locator tells where chunks are. It must be safe for concurrent use.
type Locator interface {
	// Locate returns the place of a chunk, and false if none is known.
	Locate(id ID) (Location, bool, error)
}

// Options are a store's settings; zero values mean the defaults.
type Options struct {
	Log      *slog.Logger
	PackSize int64             // bytes after which a pack is closed; default 32 MiB, at most 1 GiB
	Workers  int               // compressing goroutines of a writer; default: one a core
	Level    zstd.EncoderLevel // default zstd.SpeedFastest
}

const (
	defaultPackSize = 32 << 20
	maxPackSize     = 1 << 30
	// openPacks bounds the pack files held open; more may be open for the length of a read.
	openPacks = 128
	// worthwhile: compression must save at least one part in so many, else reading the chunk raw is cheaper.
	worthwhile = 32
)

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PackSize <= 0 {
		o.PackSize = defaultPackSize
	}
	o.PackSize = min(o.PackSize, maxPackSize)
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.Level == 0 {
		o.Level = zstd.SpeedFastest
	}
}

// Store reads and writes chunks. It is safe for concurrent use.
type Store struct {
	target target.Local
	loc    Locator
	opts   Options
	packs  *packCache
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	bufs   bufferPool
	nonce  func() [nonceLen]byte
	bad    distrust
	hashed *VerifiedSet[recordAt]

	gc sync.RWMutex // see the package documentation, Collecting garbage
	mu struct {
		sync.Mutex
		writers map[*Writer]struct{}
	}
}

// Open opens the store on a target. With a nil loc no chunk is known: enough to read trailers and verify packs.
func Open(ctx context.Context, t target.Local, loc Locator, opts Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts.setDefaults()
	if loc == nil {
		loc = noLocator{}
	}
	// Chunks are short: a window of their size, no checksum (the id is one), and no frame header beyond the length.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(opts.Level), zstd.WithEncoderConcurrency(opts.Workers),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(MaxChunk))
	if err != nil {
		return nil, fmt.Errorf("open chunk store: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxChunk),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("open chunk store: %w", err)
	}
	s := &Store{target: t, loc: loc, opts: opts, enc: enc, dec: dec, nonce: randomNonce}
	s.hashed = NewVerifiedSet[recordAt](hashedLimit)
	s.packs = newPackCache(t, openPacks)
	s.mu.writers = make(map[*Writer]struct{})
	return s, nil
}

// Close closes the pack files. Nothing of the store may be running or used any more.
func (s *Store) Close() error {
	s.dec.Close()
	return errors.Join(s.enc.Close(), s.packs.close())
}

type noLocator struct{}

func (noLocator) Locate(ID) (Location, bool, error) { return Location{}, false, nil }

// Get returns the chunk's bytes, verified against id, in buf if its capacity suffices. The error is ErrNotFound if
// the index doesn't know the chunk, and a *CorruptError if it can't be had as it was stored.
func (s *Store) Get(ctx context.Context, id ID, buf []byte) ([]byte, error) {
	return s.get(ctx, id, buf, false)
}

// Reread is Get for those who read the same chunks again and again: a record that was hashed since the store was opened
// isn't hashed again. Its CRC-32C is checked every time.
func (s *Store) Reread(ctx context.Context, id ID, buf []byte) ([]byte, error) {
	return s.get(ctx, id, buf, true)
}

func (s *Store) get(ctx context.Context, id ID, buf []byte, again bool) ([]byte, error) {
	loc, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	for {
		l := Located{id, loc}
		p, err := s.checked(ctx, &l, buf, again && s.hashed.Has(l.record()))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
		// The pack is gone. If garbage collection moved the chunk since we asked, it is elsewhere now.
		now, lerr := s.locate(id)
		if lerr != nil {
			return nil, lerr
		}
		if now == loc {
			s.bad.add(id)
			return nil, err
		}
		loc = now
	}
}

func (s *Store) locate(id ID) (Location, error) {
	loc, ok, err := s.loc.Locate(id)
	if err != nil {
		return loc, fmt.Errorf("locate chunk %s: %w", id, err)
	}
	if !ok {
		return loc, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
	}
	return loc, nil
}

// GetAt is Get for a chunk whose place the caller knows.
func (s *Store) GetAt(ctx context.Context, l Located, buf []byte) ([]byte, error) {
	return s.checked(ctx, &l, buf, false)
}

// checked reads a chunk and remembers what came of it; hashed: the record was hashed before.
func (s *Store) checked(ctx context.Context, l *Located, buf []byte, hashed bool) ([]byte, error) {
	p, err := s.getAt(ctx, l, buf, hashed)
	switch {
	case err == nil && s.bad.has(l.ID):
		s.bad.remove(l.ID) // stored anew, or the medium can be read again
	case errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist):
		s.bad.add(l.ID)
	}
	return p, err
}

func (s *Store) getAt(ctx context.Context, l *Located, buf []byte, hashed bool) ([]byte, error) {
	if !l.plausible() {
		return nil, l.corrupt(fmt.Sprintf("impossible location: %d bytes at %d for a chunk of %d", l.Length, l.Offset, l.RawLen), nil)
	}
	h, err := s.packs.acquire(ctx, l.Pack)
	if err != nil {
		return nil, l.unreadable(err)
	}
	defer s.packs.release(h)
	if int64(l.Offset)+int64(l.Length) > h.obj.Size() {
		return nil, l.corrupt(fmt.Sprintf("the pack has only %d bytes", h.obj.Size()), nil)
	}
	if cap(buf) < int(l.RawLen) {
		buf = make([]byte, l.RawLen)
	}
	if buf, err = s.readChunk(target.Reader(ctx, h.obj), l, buf[:l.RawLen]); err != nil || hashed {
		return buf, err
	}
	if Sum(buf) != l.ID {
		return nil, l.corrupt("the bytes are not those of the chunk", nil)
	}
	s.hashed.Add(l.record())
	return buf, nil
}

// readChunk fills buf, which is as long as the chunk. The id isn't checked.
func (s *Store) readChunk(r io.ReaderAt, l *Located, buf []byte) ([]byte, error) {
	// A record that saves nothing is raw: its bytes go where they are wanted without a copy.
	if l.Length == l.RawLen+recordHeader {
		var head [recordHeader]byte
		if err := readFull(r, head[:], l.Offset); err != nil {
			return nil, l.unreadable(err)
		}
		if err := readFull(r, buf, l.Offset+recordHeader); err != nil {
			return nil, l.unreadable(err)
		}
		if enc, err := checkRecord(head[:], buf, l.RawLen); err != nil || enc != encodingRaw {
			return nil, l.corrupt("bad record", err)
		}
		return buf, nil
	}
	tmp := s.bufs.get(int(l.Length))
	defer s.bufs.put(tmp)
	if err := readFull(r, tmp.b, l.Offset); err != nil {
		return nil, l.unreadable(err)
	}
	return s.decodeRecord(l, tmp.b, buf)
}

// decodeRecord verifies the record and writes the chunk into buf, which is as long as the chunk.
func (s *Store) decodeRecord(l *Located, rec, buf []byte) ([]byte, error) {
	enc, err := checkRecord(rec[:recordHeader], rec[recordHeader:], l.RawLen)
	if err != nil {
		return nil, l.corrupt("bad record", err)
	}
	if enc == encodingRaw {
		copy(buf, rec[recordHeader:])
		return buf, nil
	}
	// The capacity is the limit of what the decoder may write.
	out, err := s.dec.DecodeAll(rec[recordHeader:], buf[:0:len(buf)])
	if err != nil {
		return nil, l.corrupt("decompress", err)
	}
	if len(out) != len(buf) {
		return nil, l.corrupt(fmt.Sprintf("decompressed to %d bytes, want %d", len(out), len(buf)), nil)
	}
	return out, nil
}

func readFull(r io.ReaderAt, p []byte, off uint32) error {
	if n, err := r.ReadAt(p, int64(off)); n < len(p) {
		return err
	}
	return nil
}

func (l *Located) corrupt(reason string, err error) *CorruptError {
	return &CorruptError{Pack: l.Pack, Offset: l.Offset, Chunk: l.ID, Reason: reason, Err: err}
}

// unreadable turns an error of the target into one that names the chunk. What is missing or unreadable on the medium is
// damage; the caller's own cancellation, a target that can't be reached, and a newer format aren't.
func (l *Located) unreadable(err error) error {
	var c *CorruptError
	switch {
	case errors.As(err, &c):
		c := *c
		c.Chunk = l.ID
		return &c
	case Passing(err), errors.Is(err, ErrNewerFormat):
		return fmt.Errorf("read chunk %s from pack %s: %w", l.ID, l.Pack, err)
	case errors.Is(err, fs.ErrNotExist):
		return l.corrupt("the pack is missing", err)
	}
	return l.corrupt("can't read", err)
}

// Passing tells whether an error says nothing about what is stored: the same call may succeed later.
func Passing(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, target.ErrUnavailable) || errors.Is(err, target.ErrDenied)
}
