package chunkstore

import "sync"

// distrust remembers chunks that were found damaged, so that the next seal that has one stores it anew: its new place then
// takes the old one's in the index, and every snapshot that needs the chunk is whole again.
type distrust struct {
	sync.RWMutex
	ids map[ID]struct{}
}

// distrustLimit bounds what is remembered. Beyond it the target as a whole is not to be trusted.
const distrustLimit = 1 << 16

func (d *distrust) add(id ID) {
	d.Lock()
	defer d.Unlock()
	if d.ids == nil {
		d.ids = make(map[ID]struct{})
	}
	if len(d.ids) < distrustLimit {
		d.ids[id] = struct{}{}
	}
}

func (d *distrust) has(id ID) bool {
	d.RLock()
	defer d.RUnlock()
	_, ok := d.ids[id]
	return ok
}

func (d *distrust) remove(id ID) {
	d.Lock()
	defer d.Unlock()
	delete(d.ids, id)
}
