package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"graphvol/index"
)

// ErrPending says that a snapshot is still being stored, so that it can't be deleted.
var ErrPending = errors.New("the snapshot is still being stored; wait until it is complete")

// ErrHeld says that somebody has asked for a snapshot not to be deleted.
var ErrHeld = errors.New("the snapshot is held")

// metaDeleted is the index's key for what must be known of deleted snapshots: deletions as JSON.
const metaDeleted = "snapshot/deleted"

// deletions is what must be known of snapshots that were deleted.
type deletions struct {
	// Manifests: id → SHA-256 of the manifest, empty if there was none.
	Manifests map[string]string `json:"manifests"`
}

// upkeep has the locks of what changes the catalogue's past.
type upkeep struct {
	deleting sync.Mutex // the list of deleted snapshots, and removing manifests
	pruning  sync.Mutex // held while Prune runs
}

// Delete removes complete and failed snapshots, all or none. Their data stays until Prune, and longer for readers that
// have one of them open. Errors: ErrNoSnapshot, ErrPending, ErrHeld.
//
// The order: the list of deleted snapshots, the catalogue, the manifests. The catalogue decides: a crash before it leaves
// snapshots that are listed as deleted though they aren't, which means nothing; one after it leaves manifests, which the next
// prune removes. The list lets the chain of manifests have gaps: it holds those that a later manifest names as its parent,
// and those whose own manifest may still be there.
func (r *Repo) Delete(ctx context.Context, snaps []index.Snapshot) error {
	if len(snaps) == 0 {
		return nil
	}
	r.upkeep.deleting.Lock()
	defer r.upkeep.deleting.Unlock()
	all, err := r.Snapshots()
	if err != nil {
		return err
	}
	gone, err := chosen(all, snaps)
	if err != nil {
		return err
	}
	list, err := r.deleted()
	if err != nil {
		return err
	}
	r.trimDeleted(ctx, list.Manifests, all)
	ids := make([]string, 0, len(gone))
	for _, s := range gone {
		ids = append(ids, s.ID)
		list.Manifests[s.ID] = s.ManifestSHA256
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.putDeleted(list); err != nil {
		return err
	}
	if err := r.db.Remove(ids...); err != nil {
		return fmt.Errorf("delete snapshots: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // they are deleted; what follows is tidying up
	for _, s := range gone {
		if err := r.removeManifest(ctx, s.ID); err != nil {
			r.log.WarnContext(ctx, "the manifest of a deleted snapshot stays until the next prune", "snapshot", s.Name, "error", err)
		}
	}
	if err := r.loadBase(ctx); err != nil {
		r.log.WarnContext(ctx, "reads are not taken from the live volume", "error", err)
	}
	return nil
}

// chosen gives the catalogue's entries of snaps, each once.
func chosen(all, snaps []index.Snapshot) ([]index.Snapshot, error) {
	var out []index.Snapshot
	for _, want := range snaps {
		same := func(s index.Snapshot) bool { return s.ID == want.ID }
		i := slices.IndexFunc(all, same)
		switch {
		case i < 0:
			return nil, fmt.Errorf("delete %s: %w: it was deleted before", want.Name, ErrNoSnapshot)
		case all[i].State == index.StatePending:
			return nil, fmt.Errorf("delete %s: %w", want.Name, ErrPending)
		case all[i].Hold != "":
			return nil, fmt.Errorf("delete %s: %w (%s): delete what it is a part of (graphvol cluster delete), or let it go first (graphvol release), if it may be deleted", want.Name, ErrHeld, all[i].Hold)
		case !slices.ContainsFunc(out, same):
			out = append(out, all[i])
		}
	}
	return out, nil
}

// deleted reads what is known of deleted snapshots.
func (r *Repo) deleted() (deletions, error) {
	p, err := r.db.Meta(metaDeleted)
	if err != nil {
		return deletions{}, fmt.Errorf("read the list of deleted snapshots: %w", err)
	}
	return decodeDeleted(p)
}

func decodeDeleted(p []byte) (deletions, error) {
	list := deletions{Manifests: make(map[string]string)}
	if len(p) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(p, &list); err != nil || list.Manifests == nil {
		return list, fmt.Errorf("list of deleted snapshots: %w", errors.Join(index.ErrCorrupt, err))
	}
	return list, nil
}

func (r *Repo) putDeleted(list deletions) error {
	p, err := json.Marshal(list)
	if err == nil {
		err = r.db.PutMeta(metaDeleted, p)
	}
	if err != nil {
		return fmt.Errorf("note which snapshots are deleted: %w", err)
	}
	return nil
}

// trimDeleted takes out what isn't needed any more. all is the catalogue as of now.
func (r *Repo) trimDeleted(ctx context.Context, list map[string]string, all []index.Snapshot) {
	parents := make(map[string]bool)
	for _, s := range all {
		if s.State == index.StatePending {
			return // the parent of one that is being sealed isn't in the catalogue yet
		}
		parents[s.Parent] = true
	}
	var removed []string
	for id := range list {
		here := slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.ID == id })
		if here {
			delete(list, id)
		} else if !parents[id] && r.removeManifest(ctx, id) == nil {
			removed = append(removed, id)
		}
	}
	// A manifest that came back after a power cut, and isn't on the list, would look as if the catalogue had lost its snapshot.
	if len(removed) == 0 || r.target.SyncRemoved(ctx, "manifests") != nil {
		return
	}
	for _, id := range removed {
		delete(list, id)
	}
}

// removeManifest removes a manifest that may be gone already.
func (r *Repo) removeManifest(ctx context.Context, id string) error {
	if err := r.target.Remove(ctx, ManifestObject(id)); err != nil {
		return fmt.Errorf("remove the manifest of snapshot %s: %w", id, err)
	}
	return nil
}

// strayManifest is a manifest of no complete or pending snapshot.
type strayManifest struct {
	id   string
	size int64
	// expected: the snapshot was deleted or failed. Else nobody knows it: the catalogue lost it.
	expected bool
}

// Lost lists the ids of snapshots that have manifests, weren't deleted, and aren't in the catalogue.
func (r *Repo) Lost(ctx context.Context) (ids []string, err error) {
	strays, err := r.strayManifests(ctx)
	for _, s := range strays {
		if !s.expected {
			ids = append(ids, s.id)
		}
	}
	return ids, err
}

// strayManifests lists them.
func (r *Repo) strayManifests(ctx context.Context) ([]strayManifest, error) {
	r.upkeep.deleting.Lock()
	defer r.upkeep.deleting.Unlock()
	objects, err := r.target.List(ctx, ManifestPrefix)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	// The catalogue after the listing: a manifest is written while its snapshot is pending.
	all, err := r.Snapshots()
	if err != nil {
		return nil, err
	}
	list, err := r.deleted()
	if err != nil {
		return nil, err
	}
	states := make(map[string]string, len(all))
	for _, s := range all {
		states[s.ID] = s.State
	}
	var out []strayManifest
	for _, o := range objects {
		id, ok := ManifestID(o.Name)
		if state := states[id]; !ok || state == index.StateComplete || state == index.StatePending {
			continue
		}
		_, deleted := list.Manifests[id]
		out = append(out, strayManifest{id, o.Size, deleted || states[id] == index.StateFailed})
	}
	return out, nil
}
