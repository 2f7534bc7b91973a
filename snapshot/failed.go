package snapshot

import (
	"context"
	"slices"

	"graphvol/index"
)

// keptFailed is how many failed snapshots stay in the catalogue, to tell why. It has room for 32,767 in all: without a bound, a schedule that fails once
// a minute would fill it in three weeks, and no snapshot could be taken even when the cause is gone.
const keptFailed = 100

// forgetFailed deletes the oldest failed snapshots when there are too many, a tenth of them at a time.
func (r *Repo) forgetFailed(ctx context.Context) {
	all, err := r.Snapshots()
	failed := slices.DeleteFunc(all, func(s index.Snapshot) bool { return s.State != index.StateFailed })
	if err == nil && len(failed) > keptFailed {
		failed = failed[:len(failed)-keptFailed*9/10]
		if err = r.Delete(ctx, failed); err == nil {
			r.log.InfoContext(ctx, "old failed snapshots are no longer listed", "snapshots", len(failed))
		}
	}
	if err != nil {
		r.log.WarnContext(ctx, "failed snapshots stay in the catalogue", "error", err)
	}
}
