package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"graphvol/chunkstore/target"
)

const (
	// salvageWindow is how much of a pack is held in memory; a record fits in a half.
	salvageWindow = 4 << 20
	// salvageEffort bounds the search for records in a pack, as a multiple of its length, so that no content can make it endless.
	salvageEffort = 32
	sector        = 4096
)

// Salvaged is what Salvage found in a pack.
type Salvaged struct {
	Copied int   // records copied
	Lost   int64 // bytes between the first record and the last that belong to none
}

// Salvage copies what can be found in a pack whose header or trailer is damaged: each record that matches its checksum, if keep wants its
// chunk, into w, which NewRepackWriter made. A chunk's id isn't in its record; it is the hash of what is in there. Where a record is damaged, the
// next one is looked for behind it, or else byte by byte.
func (s *Store) Salvage(ctx context.Context, pack PackID, keep func(ID) bool, w *Writer) (Salvaged, error) {
	obj, err := s.target.Open(ctx, pack.Object())
	if err != nil {
		return Salvaged{}, packError(pack, err)
	}
	defer obj.Close()
	v := salvager{store: s, in: target.Reader(ctx, obj), size: obj.Size(), pack: pack, keep: keep, w: w, end: min(obj.Size(), maxPackLen), effort: salvageEffort * obj.Size()}
	v.findEnd()
	if err := v.run(ctx); err != nil {
		return v.found, fmt.Errorf("salvage pack %s: %w", pack, err)
	}
	return v.found, nil
}

// salvager is one run of Salvage.
type salvager struct {
	store  *Store
	in     io.ReaderAt
	size   int64 // of the pack
	pack   PackID
	keep   func(ID) bool
	w      *Writer
	end    int64 // of the records, or of the pack where that isn't known
	effort int64 // bytes that may still be hashed in vain
	found  Salvaged

	buf []byte // of the pack, from at on
	at  int64
}

// findEnd takes the end of the records from the footer, if that is whole.
func (v *salvager) findEnd() {
	size := v.size
	if size < minPackLen {
		return
	}
	var foot [footerLen]byte
	if n, _ := v.in.ReadAt(foot[:], size-footerLen); n < len(foot) {
		return
	}
	if f, err := decodeFooter(foot[:], appendHeader(nil), size); err == nil {
		v.end = int64(f.trailerOff)
	}
}

func (v *salvager) run(ctx context.Context) error {
	last := int64(headerLen) // end of the last whole record
	for off := last; off+recordHeader <= v.end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := v.record(off)
		if rec == nil {
			off = v.next(off)
			continue
		}
		v.found.Lost += off - last
		if err := v.copy(rec); err != nil {
			return err
		}
		off += int64(len(rec))
		last = off
	}
	return nil
}

// record returns the whole record at off; nil if there is none.
func (v *salvager) record(off int64) []byte {
	head := v.bytes(off, recordHeader)
	if head == nil || v.effort < 0 {
		return nil
	}
	_, n, encoding := recordFields(head)
	if n > MaxChunk || encoding > encodingZstd {
		return nil
	}
	rec := v.bytes(off, recordHeader+int(n))
	if rec == nil {
		return nil
	}
	if _, err := checkRecord(rec[:recordHeader], rec[recordHeader:], n); err != nil {
		v.effort -= int64(n)
		return nil
	}
	return rec
}

// next tells where to look for a record after there was none at off: behind the damaged one, if its length is true.
func (v *salvager) next(off int64) int64 {
	if v.effort < 0 {
		return v.end
	}
	if v.bytes(off, 1) == nil { // a sector that can't be read
		return off + sector
	}
	if head := v.bytes(off, recordHeader); head != nil {
		_, n, _ := recordFields(head)
		if behind := off + recordHeader + int64(n); v.record(behind) != nil {
			return behind
		}
	}
	return off + 1
}

// bytes returns n bytes of the pack at off; nil if it hasn't so many, or they can't be read.
func (v *salvager) bytes(off int64, n int) []byte {
	if off+int64(n) > v.end {
		return nil
	}
	if off < v.at || off+int64(n) > v.at+int64(len(v.buf)) {
		if v.buf == nil {
			v.buf = make([]byte, 0, salvageWindow)
		}
		v.at = off
		v.buf = v.buf[:min(int64(cap(v.buf)), v.end-off)]
		read, _ := v.in.ReadAt(v.buf, off) // an unreadable place counts as damaged
		v.buf = v.buf[:read]
		if read < n {
			return nil
		}
	}
	return v.buf[off-v.at:][:n]
}

// copy hands a record to the writer.
func (v *salvager) copy(rec []byte) error {
	_, n, encoding := recordFields(rec)
	chunk := rec[recordHeader:]
	if encoding == encodingZstd {
		buf := v.store.bufs.get(MaxChunk)
		defer v.store.bufs.put(buf)
		out, err := v.store.dec.DecodeAll(chunk, buf.b[:0:MaxChunk])
		if err != nil {
			v.found.Lost += int64(recordHeader + n)
			return nil
		}
		chunk = out
	}
	l := Located{ID: Sum(chunk), Location: Location{Pack: v.pack, RawLen: uint32(len(chunk))}}
	if !v.keep(l.ID) {
		return nil
	}
	v.found.Copied++
	return v.w.putRecord(&l, rec)
}

// BadChunks lists the chunks of the damage that an error of VerifyPack tells of; whole is false if the pack's own parts are damaged.
func BadChunks(err error) (ids []ID, whole bool) {
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		var c *CorruptError
		switch {
		case errors.Is(err, fs.ErrNotExist), !errors.As(err, &c), c.Chunk.IsZero():
			return nil, false
		}
		ids = append(ids, c.Chunk)
	}
	return ids, true
}
