package cow

import (
	"errors"

	"graphvol/fs/cow/epoch"
)

// mergeParts of the dirty map become one. Each epoch of a snapshot that failed has two mappings and 128 KiB of the disk, and every look for a mark
// asks each of them; while snapshots fail for weeks, nothing but this keeps them few.
const mergeParts = 8

// mergeCarried makes one part of those that wait for the running epoch's snapshot: as if the barriers between them had not been. The
// barrier semaphore is held. Where an unsealed snapshot is left, whose reads tell epochs apart by their numbers, it does nothing; without
// one, nobody else changes what is carried.
func (v *Volume) mergeCarried() {
	v.mu.Lock()
	parts := v.mu.carried
	unsealed := len(*v.unsealed.Load())
	v.mu.Unlock()
	if unsealed > 0 || len(parts) < mergeParts {
		return
	}
	eps := make([]*epoch.Epoch, len(parts))
	for i, p := range parts {
		eps[i] = p.ep
	}
	last := eps[len(eps)-1].Number()
	merged := &part{ep: epoch.Merge(last, eps)}
	if err := v.db.PutEpoch(last, merged.ep.Encode()); err != nil {
		v.log.Warn("the dirty maps of snapshots that failed stay many", "epochs", len(parts), "err", err)
		return
	}
	merged.indexed = true
	v.mu.Lock()
	v.setCarriedLocked([]*part{merged})
	v.mu.Unlock()
	// The index has it all, so what is left behind by an error is only too much.
	var errs error
	for _, ep := range eps {
		n := ep.Number()
		if n != last {
			errs = errors.Join(errs, v.db.DropEpochs(n))
		}
		errs = errors.Join(errs, ep.Close(), epoch.Delete(v.dirs.epochs, n), v.marker(n).remove())
	}
	v.db.DropIntents(last)
	if errs != nil {
		v.log.Warn("leftovers of merged dirty maps", "last epoch", last, "err", errs)
	}
}
