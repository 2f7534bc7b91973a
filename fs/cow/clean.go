package cow

import (
	"context"

	"graphvol/fs/cow/epoch"
)

// since lists the epochs after the newest complete snapshot. Whoever moves an epoch from one list to another puts it into the
// new one first, so that none is missed between the looks: running, unsealed, carried is the order they move in, or back
// from unsealed to unsealed and carried.
func (v *Volume) since() (eps []*epoch.Epoch) {
	eps = append(eps, v.run.Load().ep)
	for _, e := range *v.unsealed.Load() {
		for _, p := range *e.parts.Load() {
			eps = append(eps, p.ep)
		}
	}
	for _, p := range *v.carried.Load() {
		eps = append(eps, p.ep)
	}
	return eps
}

// ReadClean fills p from the live file if everything in the range is unchanged since the barrier of the newest complete
// snapshot, which must be snapshotID; the inode must be the one of generation gen.
func (v *Volume) ReadClean(ctx context.Context, snapshotID string, ino, gen uint64, p []byte, off int64) (bool, error) {
	base := v.base.Load()
	if base == nil || *base != snapshotID || v.scan.active.Load() || !v.clean(ino, off, len(p)) {
		return false, nil
	}
	a, err := v.tree.Stat(ino)
	if err != nil || a.Gen != gen {
		return false, nil // not known to the backing at the moment, or another inode
	}
	if err := readFull(func(p []byte, off int64) (int, error) { return v.tree.ReadAt(ino, p, off) }, p, off); err != nil {
		return false, nil
	}
	// Marks come before changes: no mark now, no change before the read.
	return v.base.Load() == base && v.clean(ino, off, len(p)), ctx.Err()
}

func (v *Volume) clean(ino uint64, off int64, n int) bool {
	v.mu.Lock()
	full := v.mu.full
	v.mu.Unlock()
	for _, e := range *v.unsealed.Load() {
		full = full || e.Full()
	}
	if full {
		return false
	}
	first, blocks := span(off, int64(n))
	for _, ep := range v.since() {
		in := ep.Find(ino)
		if in == nil {
			continue
		}
		if in.HasRemoved() || in.HasFresh() || in.HasContent() {
			return false
		}
		for b := first; b < first+blocks; b++ {
			if in.Dirty(b, 1) {
				return false
			}
		}
	}
	return true
}

// Epoch is the number of the running epoch.
func (v *Volume) Epoch() uint64 { return v.run.Load().number }

// SetBase says which snapshot is the newest complete one, when a volume has just been opened. Later ones make themselves known by
// Ended.Release.
func (v *Volume) SetBase(snapshotID string) { v.base.Store(&snapshotID) }
