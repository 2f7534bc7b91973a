package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
)

// OldCatalogue is what a rebuild can use of the old index.
type OldCatalogue struct {
	snaps   []index.Snapshot
	deleted deletions
	volume  string
}

// ReadOldCatalogue reads what there is in a state's index; nothing if that is missing or damaged. Errors: index.ErrInUse,
// index.ErrNewerFormat.
func ReadOldCatalogue(cfg Config) (old OldCatalogue, err error) {
	path := filepath.Join(cfg.State, IndexName)
	if st, err := os.Stat(path); err != nil || st.Size() == 0 {
		return old, nil
	}
	db, err := index.Open(path, index.Options{Log: cfg.Log})
	if errors.Is(err, index.ErrInUse) || errors.Is(err, index.ErrNewerFormat) {
		return old, err
	}
	if err != nil {
		return old, nil
	}
	defer db.Close()
	if list, err := (&Repo{db: db}).deleted(); err == nil {
		old.deleted = list
	}
	if id, err := db.Meta(metaVolume); err == nil {
		old.volume = string(id)
	}
	old.snaps, _ = db.Snapshots() // nothing if one of them is damaged
	return old, nil
}

// snapshots gives what the catalogue will have: of the old one what it says, and what only the manifests tell.
func (b *rebuilder) snapshots(ctx context.Context) ([]index.Snapshot, error) {
	objects, err := b.target.List(ctx, ManifestPrefix)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	old := make(map[string]index.Snapshot)
	var all []index.Snapshot
	for _, s := range b.opts.Old.snaps {
		if s.State != index.StatePending {
			old[s.ID] = s
			all = append(all, s)
		}
	}
	here := make(map[string]bool)
	for _, o := range slices.Backward(objects) { // the newest first: each tells what the one before it must be
		id, ok := ManifestID(o.Name)
		if !ok {
			continue
		}
		s, isNew, err := b.manifest(ctx, id, old)
		if err != nil {
			return nil, err
		}
		if here[id] = true; isNew {
			all = append(all, s)
		}
	}
	for _, s := range old {
		if s.State == index.StateComplete && !here[s.ID] {
			b.problem(s.Name, errors.New("its manifest is missing; the old index knows the snapshot, so it is kept"))
		}
	}
	return b.oneName(all), nil
}

// manifest reads a manifest; isNew if it tells of a snapshot that the old catalogue doesn't know.
func (b *rebuilder) manifest(ctx context.Context, id string, old map[string]index.Snapshot) (s index.Snapshot, isNew bool, err error) {
	m, sum, err := readManifest(ctx, b.target, id)
	_, deleted := b.opts.Old.deleted.Manifests[id]
	s, known := old[id]
	switch {
	case ctx.Err() != nil:
		return s, false, ctx.Err()
	case errors.Is(err, ErrNewerFormat) && b.damaged(ctx, id, cmp.Or(s.ManifestSHA256, b.before[id])):
		err = fmt.Errorf("manifest of snapshot %s: %w: its format version is damaged", id, ErrBadManifest)
	case errors.Is(err, ErrNewerFormat), chunkstore.Passing(err):
		return s, false, err
	case known && s.State == index.StateFailed, deleted && !known:
		return s, false, nil
	case err == nil && !known:
		err = CheckName(m.Name)
	}
	if err != nil && known {
		b.problem(s.Name, fmt.Errorf("%w; the old index knows the snapshot, so it is kept", err))
		return s, false, nil
	}
	if err != nil {
		b.setAside(id, m.Name, err)
		return s, false, nil
	}
	b.volumes[m.Volume]++
	b.parents[id] = m.ParentManifestSHA256
	b.before[m.Parent] = m.ParentManifestSHA256
	if known {
		return s, false, nil
	}
	s, err = m.snapshot(sum)
	return s, true, err
}

// snapshot is what the catalogue has of a complete snapshot with this manifest, whose SHA-256 is sum.
func (m *Manifest) snapshot(sum string) (index.Snapshot, error) {
	root, err := chunkstore.ParseID(m.ChecksumSHA256)
	return index.Snapshot{
		ID: m.SnapshotID, Name: m.Name, Tags: m.Tags, Parent: m.Parent, Kind: m.Kind, State: index.StateComplete, Created: m.Created, Files: m.Files, Bytes: m.Bytes,
		DirtyBytes: m.DirtyBytes, StoredBytes: m.StoredBytes, Root: root, ManifestSHA256: sum,
	}, err
}

// oneName leaves the newest of those that have one name: the others had failed or were deleted before, or the name wouldn't have been
// free.
func (b *rebuilder) oneName(all []index.Snapshot) []index.Snapshot {
	newest := make(map[string]*index.Snapshot)
	for i := range all {
		s := &all[i]
		if other := newest[s.Name]; s.State == index.StateComplete && (other == nil || compareAge(other, s) < 0) {
			newest[s.Name] = s
		}
	}
	out := make([]index.Snapshot, 0, len(all))
	for _, s := range all {
		if n := newest[s.Name]; s.State == index.StateComplete && n.ID != s.ID {
			b.setAside(s.ID, s.Name, errors.New("a later snapshot has its name, so it had failed or was deleted"))
			continue
		}
		out = append(out, s)
	}
	return out
}

// damaged tells whether a manifest isn't the one that has a hash. An empty hash isn't known.
func (b *rebuilder) damaged(ctx context.Context, id, sum string) bool {
	p, err := target.Get(ctx, b.target, ManifestObject(id), MaxManifest)
	return err == nil && sum != "" && hashHex(p) != sum
}

// setAside leaves a snapshot out.
func (b *rebuilder) setAside(id, name string, why error) {
	b.res.Aside = append(b.res.Aside, id)
	b.problem(cmp.Or(name, id), fmt.Errorf("the snapshot is left out: %w", why))
}

// compareAge tells which snapshot was taken before the other, as far as the clock is right.
func compareAge(a, b *index.Snapshot) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// inOrder puts snapshots in the order in which they were taken: each behind its parent, whatever the clock said, and otherwise by time. A
// manifest names the hash of its parent's, so there is no circle; one that was forged is cut somewhere.
func inOrder(all []index.Snapshot) []index.Snapshot {
	slices.SortFunc(all, func(a, b index.Snapshot) int { return compareAge(&a, &b) })
	at := make(map[string]int, len(all))
	for i := range all {
		at[all[i].ID] = i
	}
	out, done := make([]index.Snapshot, 0, len(all)), make([]bool, len(all))
	for i := range all {
		var line []int // i and those before it that aren't there yet, newest first
		for j, ok := i, true; ok && !done[j]; j, ok = at[all[j].Parent] {
			done[j] = true
			line = append(line, j)
		}
		for _, j := range slices.Backward(line) {
			out = append(out, all[j])
		}
	}
	return out
}
