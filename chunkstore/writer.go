package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Writer stores the chunks of one seal: chunks that the locator knows, or that were put before, are stored once.
//
// Put hashes and, if the chunk is new, copies it; goroutines compress it, one more fills packs, and others sync full packs
// while the next is filled. What is in flight is bounded, so Put waits when the target is slow. Put and Has may be
// called from several goroutines; Finish, Abort and Close from one, when no Put is running.
//
// Always call Close, after the index has the chunks: until then they are protected from garbage collection.
type Writer struct {
	store  *Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	force  bool // store chunks though the locator knows them: that is what repacking is

	jobs    chan job
	records chan record
	done    chan struct{} // closed when all packs are durable, or given up
	seen    [seenShards]seenShard
	whole   wholePacks
	mu      struct {
		sync.Mutex
		state   writerState
		packs   map[PackID]struct{} // that have, or are about to get, their names on the target
		written Written
	}
}

// seenShard holds a part of the ids that were put or found stored.
type seenShard struct {
	sync.Mutex
	ids map[ID]struct{}
}

const seenShards = 16

type writerState int

const (
	writerOpen writerState = iota
	writerFinished
	writerAborted
	writerClosed
)

// Written is what a Writer has stored, all of it durable. StoredBytes is the length of all packs.
type Written struct {
	Chunks      []Located
	Packs       []PackInfo
	StoredBytes int64
}

// job is a chunk to make a record of: recordHeader bytes of room, then the chunk.
type job struct {
	id  ID
	buf *buffer
	raw bool // compressing it is a waste of time
}

// record is a complete record.
type record struct {
	id     ID
	rawLen uint32
	buf    *buffer
}

// NewWriter begins a seal. When ctx ends, the writer fails.
func (s *Store) NewWriter(ctx context.Context) *Writer { return s.newWriter(ctx, false) }

// NewRepackWriter returns a writer for Repack: it stores chunks though they are stored already.
func (s *Store) NewRepackWriter(ctx context.Context) *Writer { return s.newWriter(ctx, true) }

func (s *Store) newWriter(ctx context.Context, force bool) *Writer {
	w := &Writer{store: s, force: force, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.jobs = make(chan job, 2*s.opts.Workers)
	w.records = make(chan record, 8*s.opts.Workers)
	w.mu.packs = make(map[PackID]struct{})
	for i := range w.seen {
		w.seen[i].ids = make(map[ID]struct{})
	}
	s.mu.Lock()
	s.mu.writers[w] = struct{}{}
	s.mu.Unlock()
	var workers sync.WaitGroup
	for range s.opts.Workers {
		workers.Go(w.compress)
	}
	go func() {
		workers.Wait()
		close(w.records)
	}()
	go w.writePacks()
	return w
}

// Put stores a chunk of at most MaxChunk bytes and returns its id. The chunk is durable when Finish has returned. p may
// be reused at once. An error of the background work shows in a later Put or in Finish.
func (w *Writer) Put(p []byte) (ID, error) { return w.put(p, false) }

// RawWriter is a Writer whose Put doesn't try to compress.
type RawWriter struct{ w *Writer }

// Raw returns the writer for chunks that can't be compressed.
func (w *Writer) Raw() RawWriter { return RawWriter{w} }

// Put is Writer.Put, without compressing.
func (r RawWriter) Put(p []byte) (ID, error) { return r.w.put(p, true) }

func (w *Writer) put(p []byte, raw bool) (ID, error) {
	if len(p) > MaxChunk {
		return ID{}, fmt.Errorf("store a chunk of %d bytes: %w (limit %d)", len(p), ErrTooLarge, MaxChunk)
	}
	id := Sum(p)
	isNew, err := w.claim(id)
	if err != nil || !isNew {
		return id, err
	}
	buf := w.store.bufs.get(recordHeader + len(p))
	copy(buf.b[recordHeader:], p)
	select {
	case w.jobs <- job{id, buf, raw}:
		return id, nil
	case <-w.ctx.Done():
		w.store.bufs.put(buf)
		return ID{}, w.failure()
	}
}

// Has tells whether the chunk is stored or has been put. If so it is protected as if it had been put.
func (w *Writer) Has(id ID) (bool, error) {
	sh := w.shard(id)
	w.store.gc.RLock()
	defer w.store.gc.RUnlock()
	sh.Lock()
	_, ok := sh.ids[id]
	sh.Unlock()
	if ok {
		return true, nil
	}
	ok, err := w.stored(id)
	if err != nil || !ok {
		return false, err
	}
	sh.Lock()
	sh.ids[id] = struct{}{}
	sh.Unlock()
	return true, nil
}

// claim tells whether the caller must store the chunk; if not, it is stored or another caller is about to.
func (w *Writer) claim(id ID) (bool, error) {
	if err := w.ctx.Err(); err != nil {
		return false, w.failure()
	}
	// Between the look into the index and the note that we rely on what it says, nobody may drop the chunk.
	w.store.gc.RLock()
	defer w.store.gc.RUnlock()
	sh := w.shard(id)
	sh.Lock()
	_, ok := sh.ids[id]
	sh.ids[id] = struct{}{}
	sh.Unlock()
	if ok {
		return false, nil
	}
	if w.force {
		return true, nil
	}
	ok, err := w.stored(id)
	if err != nil {
		w.cancel(err) // else a second Put of the chunk would take it for stored
	}
	return !ok, err
}

func (w *Writer) shard(id ID) *seenShard { return &w.seen[id[0]%seenShards] }

// protects tells whether the writer has put the chunk or found it stored.
func (w *Writer) protects(id ID) bool {
	sh := w.shard(id)
	sh.Lock()
	defer sh.Unlock()
	_, ok := sh.ids[id]
	return ok
}

// failure is why the writer's context ended.
func (w *Writer) failure() error {
	err := context.Cause(w.ctx)
	if errors.Is(err, errAborted) {
		return ErrWriterClosed
	}
	return err
}

var errAborted = errors.New("aborted")

// Finish waits until all that was put is durable. No Put may follow.
func (w *Writer) Finish() (Written, error) {
	w.mu.Lock()
	state := w.mu.state
	if state == writerOpen {
		w.mu.state = writerFinished
		close(w.jobs)
	}
	w.mu.Unlock()
	if state != writerOpen {
		return Written{}, ErrWriterClosed
	}
	<-w.done
	if w.ctx.Err() != nil {
		err := w.failure()
		w.Abort()
		return Written{}, fmt.Errorf("store chunks: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.written, nil
}

// Abort gives up and removes the packs written so far, also after Finish. Don't call it when the index may refer to them.
func (w *Writer) Abort() {
	w.mu.Lock()
	state := w.mu.state
	if state == writerOpen {
		close(w.jobs)
	}
	if state <= writerFinished {
		w.mu.state = writerAborted
	}
	w.mu.Unlock()
	if state > writerFinished {
		return
	}
	w.cancel(errAborted)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.mu.written.Packs {
		if err := w.store.removePack(context.WithoutCancel(w.ctx), p.ID); err != nil {
			w.store.opts.Log.Warn("a pack of a failed seal stays until the next prune", "pack", p.ID, "error", err)
		}
	}
	w.mu.written = Written{}
}

// Close ends the protection of the writer's chunks. It aborts a writer that wasn't finished.
func (w *Writer) Close() {
	w.mu.Lock()
	state := w.mu.state
	w.mu.Unlock()
	if state == writerOpen {
		w.Abort()
	}
	w.store.mu.Lock()
	delete(w.store.mu.writers, w)
	w.store.mu.Unlock()
	w.mu.Lock()
	w.mu.state = writerClosed
	w.mu.Unlock()
	w.cancel(errAborted)
}

// compress turns jobs into records.
func (w *Writer) compress() {
	for j := range w.jobs {
		if w.ctx.Err() != nil {
			w.store.bufs.put(j.buf)
			continue
		}
		r := w.store.encodeRecord(j)
		select {
		case w.records <- r:
		case <-w.ctx.Done():
			w.store.bufs.put(r.buf)
		}
	}
}

// encodeRecord makes the record of a chunk, compressed if that saves something.
func (s *Store) encodeRecord(j job) record {
	raw := j.buf.b[recordHeader:]
	r := record{id: j.id, rawLen: uint32(len(raw)), buf: j.buf}
	if j.raw {
		sealRecord(r.buf.b, encodingRaw)
		return r
	}
	out := s.bufs.get(recordHeader)
	out.b = s.enc.EncodeAll(raw, out.b)
	if len(out.b)-recordHeader < len(raw)-len(raw)/worthwhile {
		s.bufs.put(j.buf)
		r.buf = out
		sealRecord(r.buf.b, encodingZstd)
		return r
	}
	s.bufs.put(out)
	sealRecord(r.buf.b, encodingRaw)
	return r
}
