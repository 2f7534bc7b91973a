package remote

import (
	"context"

	"graphvol/index"
)

// repairer is what a target is that spreads objects.
type repairer interface {
	// Repair puts what is missing of an object.
	Repair(ctx context.Context, name string) error
}

// repair puts what objects lack that could not be put on all their targets. Targets that are still away are no error: the snapshots are there.
func (w *round) repair(ctx context.Context) error {
	base, ok := w.base.(repairer)
	if !ok {
		return nil
	}
	rows, err := w.cfg.Local.Index.RemoteObjects(w.cfg.Name, "")
	if err != nil {
		return err
	}
	var whole []index.RemoteObject
	for _, o := range rows {
		if !o.Degraded {
			continue
		}
		if err := base.Repair(ctx, o.Name); err != nil {
			w.cfg.Log.Debug("an object is not on all its targets yet", "object", o.Name, "err", err)
			w.done.Degraded++
		} else {
			o.Degraded = false
			whole = append(whole, o)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	w.done.Repaired = len(whole)
	if len(whole) == 0 {
		return nil
	}
	return w.cfg.Local.Index.SetRemoteObjects(w.cfg.Name, whole, nil)
}
