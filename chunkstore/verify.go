package chunkstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"graphvol/chunkstore/target"
)

// Packs lists the packs on the target.
func (s *Store) Packs(ctx context.Context) ([]PackInfo, error) {
	infos, err := s.target.List(ctx, PackPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]PackInfo, 0, len(infos))
	for _, in := range infos {
		if id, ok := ParsePackObject(in.Name); ok {
			out = append(out, PackInfo{ID: id, Size: in.Size})
		}
	}
	return out, nil
}

// ReadTrailer returns the chunks of a pack in the order of their records. A pack whose trailer is damaged is a *CorruptError.
func (s *Store) ReadTrailer(ctx context.Context, id PackID) ([]Located, error) {
	h, err := s.packs.acquire(ctx, id)
	if err != nil {
		return nil, packError(id, err)
	}
	defer s.packs.release(h)
	chunks, _, err := readTrailer(ctx, h)
	return chunks, err
}

func packError(id PackID, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{Pack: id, Reason: "the pack is missing", Err: err}
	}
	return fmt.Errorf("open pack %s: %w", id, err)
}

// readTrailer also returns where the records end.
func readTrailer(ctx context.Context, h *packHandle) ([]Located, int64, error) {
	size := h.obj.Size()
	bad := func(off int64, err error) ([]Located, int64, error) {
		if Passing(err) {
			return nil, 0, fmt.Errorf("read pack %s: %w", h.id, err)
		}
		return nil, 0, &CorruptError{Pack: h.id, Offset: uint32(min(off, math.MaxUint32)), Reason: "bad trailer", Err: err}
	}
	var foot [footerLen]byte
	if _, err := h.obj.ReadAt(ctx, foot[:], size-footerLen); err != nil && !errors.Is(err, io.EOF) {
		return bad(size-footerLen, err)
	}
	f, err := decodeFooter(foot[:], h.header[:], size)
	if err != nil {
		return bad(size-footerLen, err)
	}
	off := int64(f.trailerOff)
	trailer := make([]byte, f.trailerLen())
	if n, err := h.obj.ReadAt(ctx, trailer, off); n < len(trailer) {
		return bad(off, err)
	}
	if got := trailerFooter(trailer, 0, 0); got.sum != f.sum {
		return bad(off, errors.New("the trailer's hash differs"))
	} else if got.packID() != h.id {
		return bad(off, fmt.Errorf("this is pack %s under a wrong name", got.packID()))
	}
	chunks, err := decodeTrailer(trailer, h.id, f.trailerOff)
	if err != nil {
		return bad(off, err)
	}
	return chunks, off, nil
}

// VerifyPack reads a whole pack and checks every byte of it. All damage found is joined into the error: one
// *CorruptError for each damaged chunk, or for what surrounds them. A writer that gets a damaged chunk stores it anew.
func (s *Store) VerifyPack(ctx context.Context, id PackID) error {
	h, err := s.packs.acquire(ctx, id)
	if err != nil {
		return packError(id, err)
	}
	defer s.packs.release(h)
	return s.verifyPack(ctx, h, walkBuffer, s.bad.add)
}

// VerifyObject is VerifyPack for a pack that is elsewhere, as on a copy of the store.
func (s *Store) VerifyObject(ctx context.Context, id PackID, obj target.Object) error {
	h := &packHandle{id: id, obj: obj}
	if err := h.readHeader(ctx); err != nil {
		return packError(id, err)
	}
	return s.verifyPack(ctx, h, farBuffer, func(ID) {})
}

// How much is read at once of a pack that is read from begin to end. Elsewhere each read may be a request, and takes as long as the way there and back.
const (
	walkBuffer = 1 << 20
	farBuffer  = 4 << 20
)

func (s *Store) verifyPack(ctx context.Context, h *packHandle, buffer int, bad func(ID)) error {
	var damage []error
	err := s.eachRecordOf(ctx, h, buffer, func(ID) bool { return true }, func(l *Located, rec []byte, err error) error {
		if err == nil {
			err = s.verifyRecord(l, rec)
		}
		if errors.Is(err, ErrCorrupt) {
			bad(l.ID)
			damage = append(damage, err)
			err = nil
		}
		return err
	})
	return errors.Join(append(damage, err)...)
}

func (s *Store) verifyRecord(l *Located, rec []byte) error {
	buf := s.bufs.get(int(l.RawLen))
	defer s.bufs.put(buf)
	chunk, err := s.decodeRecord(l, rec, buf.b)
	if err == nil && Sum(chunk) != l.ID {
		err = l.corrupt("the bytes are not those of the chunk", nil)
	}
	return err
}

// eachRecord reads the records of a pack that are wanted, from begin to end. fn gets each, or the error of reading it; its own error
// ends the walk.
func (s *Store) eachRecord(ctx context.Context, id PackID, want func(ID) bool, fn func(l *Located, rec []byte, err error) error) error {
	h, err := s.packs.acquire(ctx, id)
	if err != nil {
		return packError(id, err)
	}
	defer s.packs.release(h)
	return s.eachRecordOf(ctx, h, walkBuffer, want, fn)
}

func (s *Store) eachRecordOf(ctx context.Context, h *packHandle, buffer int, want func(ID) bool, fn func(l *Located, rec []byte, err error) error) error {
	chunks, end, err := readTrailer(ctx, h)
	if err != nil {
		return err
	}
	chunks = slices.DeleteFunc(chunks, func(l Located) bool { return !want(l.ID) })
	return s.walkRecords(ctx, h.obj, buffer, chunks, end, fn)
}

// walkRecords reads records in ascending order. What is between them is skipped where that saves a read.
func (s *Store) walkRecords(ctx context.Context, obj target.Object, buffer int, chunks []Located, end int64,
	fn func(l *Located, rec []byte, err error) error) error {
	in := target.Reader(ctx, obj)
	r, at := bufio.NewReaderSize(io.NewSectionReader(in, headerLen, end-headerLen), buffer), int64(headerLen)
	seek := func(to int64) {
		if skip := to - at; skip >= 0 && skip <= int64(r.Buffered()) {
			_, _ = r.Discard(int(skip)) // of what is buffered: it can't fail
		} else {
			r.Reset(io.NewSectionReader(in, to, end-to))
		}
		at = to
	}
	buf := s.bufs.get(recordHeader)
	defer s.bufs.put(buf)
	for i := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		l := &chunks[i]
		if cap(buf.b) < int(l.Length) {
			buf.b = make([]byte, l.Length)
		}
		rec := buf.b[:l.Length]
		seek(int64(l.Offset))
		n, err := io.ReadFull(r, rec)
		if at += int64(n); err != nil {
			// The medium can't read here; what follows may still be readable.
			err = l.unreadable(err)
			r.Reset(io.NewSectionReader(in, at, 0)) // so that nothing is buffered
		}
		if err := fn(l, rec, err); err != nil {
			return err
		}
	}
	return nil
}
