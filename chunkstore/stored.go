package chunkstore

import (
	"fmt"
	"sync"
)

// wholePacks remembers of the packs that a Writer relies upon whether they are there, with header, end and list of chunks. A snapshot
// must not refer to what went with a pack. The records themselves are not read.
type wholePacks struct {
	sync.Mutex
	ids map[PackID]bool
}

// stored tells whether the chunk is stored, as far as is known undamaged.
func (w *Writer) stored(id ID) (bool, error) {
	loc, ok, err := w.store.loc.Locate(id)
	if err != nil {
		return false, fmt.Errorf("locate chunk %s: %w", id, err)
	}
	return ok && !w.store.bad.has(id) && w.isWhole(loc.Pack), nil
}

func (w *Writer) isWhole(pack PackID) bool {
	w.whole.Lock()
	defer w.whole.Unlock()
	whole, known := w.whole.ids[pack]
	if known {
		return whole
	}
	_, err := w.store.ReadTrailer(w.ctx, pack)
	if err != nil && !Passing(err) {
		w.store.opts.Log.Warn("a pack is damaged or missing: what is needed of it is stored anew", "pack", pack.String(), "error", err)
	}
	if w.whole.ids == nil {
		w.whole.ids = make(map[PackID]bool)
	}
	// A target that can't be reached says nothing about what is there.
	whole = err == nil || Passing(err)
	w.whole.ids[pack] = whole
	return whole
}
