package chunkstore

import (
	"context"
	"sync"

	"graphvol/chunkstore/target"
)

// syncing bounds the full packs that are being made durable while the next one is filled.
const syncing = 2

// writePacks puts records into packs until there are no more.
func (w *Writer) writePacks() {
	defer close(w.done)
	var commits sync.WaitGroup
	defer commits.Wait()
	slots := make(chan struct{}, syncing)
	commit := func(pw *packWriter) {
		slots <- struct{}{}
		commits.Go(func() {
			defer func() { <-slots }()
			w.commit(pw)
		})
	}
	var pw *packWriter
	for r := range w.records {
		err := context.Cause(w.ctx)
		if err == nil && pw == nil {
			pw, err = newPackWriter(w.ctx, w.store.target, w.store.nonce())
		}
		if err == nil {
			err = pw.add(&r)
		}
		w.store.bufs.put(r.buf)
		if err != nil {
			w.cancel(err) // and go on: the workers must not block
			continue
		}
		if pw.off >= w.store.opts.PackSize {
			commit(pw)
			pw = nil
		}
	}
	if pw != nil {
		commit(pw)
	}
}

// commit makes a pack durable, or drops it if the writer has failed.
func (w *Writer) commit(pw *packWriter) {
	if w.ctx.Err() != nil {
		if err := pw.upload.Abort(); err != nil {
			w.store.opts.Log.Warn("can't drop an unfinished pack", "error", err)
		}
		return
	}
	info, chunks, err := pw.finish(w.ctx, w.announce)
	if err != nil {
		w.cancel(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.written.Packs = append(w.mu.written.Packs, info)
	w.mu.written.Chunks = append(w.mu.written.Chunks, chunks...)
	w.mu.written.StoredBytes += info.Size
}

// announce makes a pack known to InUse before it can be seen on the target.
func (w *Writer) announce(id PackID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.packs[id] = struct{}{}
}

// packWriter writes one pack.
type packWriter struct {
	upload  target.Upload
	nonce   [nonceLen]byte
	off     int64 // bytes written
	entries []entry
}

func newPackWriter(ctx context.Context, t target.Local, nonce [nonceLen]byte) (*packWriter, error) {
	u, err := t.Create(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := u.Write(appendHeader(nil)); err != nil {
		_ = u.Abort()
		return nil, err
	}
	return &packWriter{upload: u, nonce: nonce, off: headerLen}, nil
}

func (pw *packWriter) add(r *record) error {
	if _, err := pw.upload.Write(r.buf.b); err != nil {
		return err
	}
	pw.off += int64(len(r.buf.b))
	pw.entries = append(pw.entries, entry{r.id, uint32(len(r.buf.b)), r.rawLen})
	return nil
}

// finish writes the trailer and makes the pack durable. Its id isn't known before; announce gets it before the target does.
func (pw *packWriter) finish(ctx context.Context, announce func(PackID)) (PackInfo, []Located, error) {
	trailer := appendTrailer(make([]byte, 0, nonceLen+entryLen*len(pw.entries)+footerLen), pw.nonce, pw.entries)
	f := trailerFooter(trailer, uint64(pw.off), len(pw.entries))
	if _, err := pw.upload.Write(appendFooter(trailer, appendHeader(nil), f)); err != nil {
		_ = pw.upload.Abort()
		return PackInfo{}, nil, err
	}
	id := f.packID()
	announce(id)
	if err := pw.upload.Commit(ctx, id.Object()); err != nil {
		return PackInfo{}, nil, err
	}
	chunks := make([]Located, len(pw.entries))
	off := uint32(headerLen)
	for i, e := range pw.entries {
		chunks[i] = Located{e.id, Location{Pack: id, Offset: off, Length: e.length, RawLen: e.rawLen}}
		off += e.length
	}
	size := pw.off + int64(len(trailer)) + footerLen
	return PackInfo{ID: id, Size: size, Chunks: len(chunks)}, chunks, nil
}
