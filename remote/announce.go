package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// finish announces the snapshots, whose packs are there, and removes what isn't needed any more.
func (w *round) finish(ctx context.Context) error {
	var fresh []index.RemoteObject
	for _, s := range w.snaps {
		name := snapshot.ManifestObject(s.ID)
		if _, ok := w.have[name]; ok {
			continue
		}
		o, err := w.manifest(ctx, s)
		if errors.Is(err, fs.ErrNotExist) && w.deleted(s.ID) {
			return errVanished
		}
		if err != nil {
			return err
		}
		fresh = append(fresh, o)
	}
	if err := w.putHead(ctx, w.snaps); err != nil {
		return err
	}
	// Only now: a manifest's row says that a head lists it.
	if len(fresh) > 0 {
		if err := w.cfg.Local.Index.SetRemoteObjects(w.cfg.Name, fresh, nil); err != nil {
			return err
		}
	}
	w.done.Snapshots = len(w.snaps)
	if err := w.clusters(ctx); err != nil {
		return err
	}
	if err := w.remove(ctx); err != nil {
		return err
	}
	return w.repair(ctx)
}

// manifest puts a snapshot's manifest.
func (w *round) manifest(ctx context.Context, s index.Snapshot) (o index.RemoteObject, err error) {
	p, err := target.Get(ctx, w.cfg.Local.Target, snapshot.ManifestObject(s.ID), snapshot.MaxManifest)
	if err != nil {
		return o, fmt.Errorf("the manifest of snapshot %s: %w", s.ID, err)
	}
	if hashHex(p) != s.ManifestSHA256 {
		return o, fmt.Errorf("the manifest of snapshot %s isn't the one that was written: it is not copied; graphvol verify tells more", s.ID)
	}
	o = index.RemoteObject{Name: snapshot.ManifestObject(s.ID), Size: int64(len(p))}
	if o.Degraded, err = stored(target.Put(ctx, w.target, o.Name, p)); err != nil {
		return o, fmt.Errorf("putting the manifest of snapshot %s: %w", s.ID, err)
	}
	w.done.Bytes += o.Size
	return o, nil
}

// deleted tells whether the catalogue doesn't have a snapshot any more.
func (w *round) deleted(id string) bool {
	all, err := w.cfg.Local.Index.Snapshots()
	return err == nil && !slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.ID == id })
}

// remove removes manifests that the newest head doesn't list, and packs that no snapshot has needed for the time of grace.
func (w *round) remove(ctx context.Context) error {
	listed := make(map[string]bool, len(w.snaps))
	for _, s := range w.snaps {
		listed[snapshot.ManifestObject(s.ID)] = true
	}
	var names []string
	var doomed []index.RemoteObject
	now := time.Now().Truncate(time.Second).UTC()
	for name, o := range w.have {
		_, needed := w.needs[name]
		switch {
		case needed || listed[name]:
		case strings.HasPrefix(name, snapshot.ManifestPrefix):
			names = append(names, name)
		case w.cfg.Grace > 0 && (o.Doomed.IsZero() || o.Doomed.After(now)): // the clock may have been wrong then
			o.Doomed = now
			doomed = append(doomed, o)
		case now.Sub(o.Doomed) >= w.cfg.Grace:
			names = append(names, name)
		}
	}
	slices.Sort(names) // manifests before packs
	if err := w.target.Remove(ctx, names...); err != nil {
		return fmt.Errorf("removing what no snapshot needs: %w", err)
	}
	w.done.Removed = len(names)
	if len(names)+len(doomed) == 0 {
		return nil
	}
	return w.cfg.Local.Index.SetRemoteObjects(w.cfg.Name, doomed, names)
}
