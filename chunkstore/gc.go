package chunkstore

import (
	"context"
	"fmt"

	"graphvol/chunkstore/target"
)

// InUse tells whether a running writer has written the pack, or is about to. Garbage collection must leave such a pack
// alone: the index may be about to refer to it. To find packs that nothing refers to: list the packs, then leave out those
// in use, and only then ask the index. In any other order a writer that ends in between loses its packs.
func (s *Store) InUse(id PackID) bool {
	for _, w := range s.writers() {
		w.mu.Lock()
		_, ok := w.mu.packs[id]
		w.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}

// Exclusive runs fn while no writer can find or put a chunk. protected tells whether a running writer relies on
// a chunk: fn must not remove such a chunk from the index.
func (s *Store) Exclusive(fn func(protected func(ID) bool) error) error {
	s.gc.Lock()
	defer s.gc.Unlock()
	writers := s.writers()
	return fn(func(id ID) bool {
		for _, w := range writers {
			if !w.force && w.protects(id) {
				return true
			}
		}
		return false
	})
}

func (s *Store) writers() []*Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Writer, 0, len(s.mu.writers))
	for w := range s.mu.writers {
		out = append(out, w)
	}
	return out
}

// Repack copies those chunks of a pack that keep wants into w, which NewRepackWriter made, and reads little else. Each is verified first. The
// copy has the pack's records as they are, not compressed anew. A damaged chunk that keep wants is an error.
func (s *Store) Repack(ctx context.Context, pack PackID, keep func(ID) bool, w *Writer) error {
	err := s.eachRecord(ctx, pack, keep, func(l *Located, rec []byte, err error) error {
		if err == nil {
			err = s.verifyRecord(l, rec)
		}
		if err != nil {
			return err
		}
		return w.putRecord(l, rec)
	})
	if err != nil {
		return fmt.Errorf("repack: %w", err)
	}
	return nil
}

// putRecord stores a verified record.
func (w *Writer) putRecord(l *Located, rec []byte) error {
	isNew, err := w.claim(l.ID)
	if err != nil || !isNew {
		return err
	}
	buf := w.store.bufs.get(len(rec))
	copy(buf.b, rec)
	select {
	case w.records <- record{l.ID, l.RawLen, buf}:
		return nil
	case <-w.ctx.Done():
		w.store.bufs.put(buf)
		return w.failure()
	}
}

// RemovePack removes a pack. Nothing durable may refer to it any more. It is no error if it is gone already.
func (s *Store) RemovePack(ctx context.Context, id PackID) error {
	if s.InUse(id) {
		return fmt.Errorf("remove pack %s: a seal that is running has written it", id)
	}
	return s.removePack(ctx, id)
}

func (s *Store) removePack(ctx context.Context, id PackID) error {
	s.packs.drop(id)
	if err := s.target.Remove(ctx, id.Object()); err != nil {
		return fmt.Errorf("remove pack %s: %w", id, err)
	}
	return nil
}

// Forget closes a pack that is gone, or isn't what it was, for readers that come from now on.
func (s *Store) Forget(id PackID) { s.packs.drop(id) }

// PutBack puts a pack, verified, in the place of a damaged or missing one, and checks that it is whole there.
func (s *Store) PutBack(ctx context.Context, id PackID, src target.Source) error {
	if err := s.target.Put(ctx, id.Object(), src, target.PutOptions{}); err != nil {
		return fmt.Errorf("put pack %s back: %w", id, err)
	}
	s.packs.drop(id) // who has the damaged one open
	if err := s.VerifyPack(ctx, id); err != nil {
		return fmt.Errorf("put pack %s back: %w", id, err)
	}
	chunks, err := s.ReadTrailer(ctx, id)
	for i := range chunks {
		s.bad.remove(chunks[i].ID)
	}
	return err
}
