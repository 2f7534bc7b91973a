package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"graphvol/chunkstore"
	"graphvol/index"
)

// Updated is what Update has found.
type Updated struct {
	Added, Deleted []string // names of snapshots
	Packs          int      // new ones
	StoreBytes     int64    // of all packs
}

// Update makes the index of a repository that only reads say what is in the target by now, where another machine has gone on: snapshots and packs come and go.
// What open readers need stays as long as the target has it. No seal, delete or prune may run, and no other Update. In this order, so that what is in the catalogue can
// be read, and an Update that failed is done by the next:
//
//  1. the manifests are listed, and after that the packs
//  2. the chunks of new packs are entered
//  3. chunks of packs that are gone are looked for in those that are there
//  4. the catalogue is changed
func (r *Repo) Update(ctx context.Context) (u Updated, err error) {
	c, err := r.compare(ctx)
	if err != nil {
		return u, fmt.Errorf("update: %w", err)
	}
	packs, err := r.store.Packs(ctx)
	if err == nil {
		u.Packs, err = r.updatePacks(ctx, packs)
	}
	if err == nil {
		err = r.updateCatalogue(ctx, c)
	}
	if err != nil {
		return u, fmt.Errorf("update: %w", err)
	}
	for _, p := range packs {
		u.StoreBytes += p.Size
	}
	u.Added, u.Deleted = namesOf(c.came), namesOf(c.went)
	return u, nil
}

func namesOf(snaps []index.Snapshot) (names []string) {
	for _, s := range snaps {
		names = append(names, s.Name)
	}
	return names
}

// comparison is how the manifests in the target differ from the catalogue.
type comparison struct {
	came, went []index.Snapshot
	parents    map[string]string // of those that came: SHA-256 of the manifest before, by its snapshot's id
}

func (r *Repo) compare(ctx context.Context) (c comparison, err error) {
	objects, err := r.target.List(ctx, ManifestPrefix)
	if err != nil {
		return c, fmt.Errorf("list manifests: %w", err)
	}
	all, err := r.Snapshots()
	if err != nil {
		return c, err
	}
	known, here, names := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, s := range all {
		known[s.ID] = true
	}
	for _, o := range objects {
		if id, ok := ManifestID(o.Name); ok {
			here[id] = true
		}
	}
	for _, s := range all {
		if here[s.ID] {
			names[s.Name] = true
		} else {
			c.went = append(c.went, s)
		}
	}
	c.parents = make(map[string]string)
	for id := range here {
		if known[id] {
			continue
		}
		if err := r.arrive(ctx, &c, id, names); err != nil {
			return c, err
		}
	}
	c.came = inOrder(c.came)
	return c, nil
}

// arrive adds a snapshot to those that came. One that can't be shown is left out, which is logged.
func (r *Repo) arrive(ctx context.Context, c *comparison, id string, names map[string]bool) error {
	m, sum, err := readManifest(ctx, r.target, id)
	if ctx.Err() != nil || chunkstore.Passing(err) {
		return err
	}
	var s index.Snapshot
	if err == nil {
		s, err = m.snapshot(sum)
	}
	if err == nil {
		err = CheckName(m.Name)
	}
	if err == nil && names[m.Name] {
		err = fmt.Errorf("another snapshot is named %q: %w", m.Name, index.ErrExists)
	}
	if err != nil {
		r.log.Error("a snapshot is left out", "id", id, "err", err)
		return nil
	}
	names[m.Name] = true
	c.came = append(c.came, s)
	if m.Parent != "" {
		c.parents[m.Parent] = m.ParentManifestSHA256
	}
	return nil
}

// updatePacks makes the chunks' places right, and returns how many packs were new.
func (r *Repo) updatePacks(ctx context.Context, packs []chunkstore.PackInfo) (int, error) {
	gone, err := r.db.KnownPacks()
	if err != nil {
		return 0, err
	}
	var fresh []chunkstore.PackInfo
	for _, p := range packs {
		if !gone[p.ID] {
			fresh = append(fresh, p)
		}
		delete(gone, p.ID)
	}
	// A chunk that has a place already gets the new one: a pack is written anew because the old one is to go, or because something in that was damaged.
	err = r.eachTrailer(ctx, fresh, func(rows []chunkstore.Located) error { return r.db.Relocate(rows, nil) })
	if err == nil && len(gone) > 0 {
		err = r.forgetPacks(ctx, gone, packs)
	}
	return len(fresh), err
}

// eachTrailer calls fn with what some packs hold, group by group. A pack that doesn't tell is left out.
func (r *Repo) eachTrailer(ctx context.Context, packs []chunkstore.PackInfo, fn func([]chunkstore.Located) error) error {
	for group := range slices.Chunk(packs, trailerGroup) {
		trailers, err := readTrailers(ctx, r.store, group)
		if err != nil {
			return err
		}
		var rows []chunkstore.Located
		for i, t := range trailers {
			if t.err != nil && !errors.Is(t.err, fs.ErrNotExist) { // else it has just been removed
				r.log.Error("what is in a pack can't be read", "pack", group[i].ID, "err", t.err)
			}
			rows = append(rows, t.rows...)
		}
		if err := fn(rows); err != nil {
			return err
		}
	}
	return nil
}

// forgetPacks takes packs out of the index that are gone. Chunks that had their place there have another one, unless no snapshot needs them.
func (r *Repo) forgetPacks(ctx context.Context, gone map[chunkstore.PackID]bool, packs []chunkstore.PackInfo) error {
	lost := make(map[chunkstore.ID]bool)
	err := r.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if gone[l.Pack] {
			lost[id] = true
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		err = r.eachTrailer(ctx, packs, func(rows []chunkstore.Located) error {
			rows = slices.DeleteFunc(rows, func(l chunkstore.Located) bool { return !lost[l.ID] })
			for _, l := range rows {
				delete(lost, l.ID)
			}
			return r.db.Relocate(rows, nil)
		})
	}
	if err != nil {
		return err
	}
	return r.db.Relocate(nil, slices.Collect(maps.Keys(gone)), slices.Collect(maps.Keys(lost))...)
}

// updateCatalogue takes snapshots out and adds others. Parents that aren't there are taken for deleted, as by Rebuild.
func (r *Repo) updateCatalogue(ctx context.Context, c comparison) error {
	if len(c.came)+len(c.went) == 0 {
		return nil
	}
	r.upkeep.deleting.Lock()
	defer r.upkeep.deleting.Unlock()
	all, err := r.Snapshots()
	if err != nil {
		return err
	}
	list, err := r.deleted()
	if err != nil {
		return err
	}
	for id, sum := range c.parents {
		list.Manifests[id] = sum
	}
	ids, went := make([]string, 0, len(c.went)), make(map[string]bool)
	for _, s := range c.went {
		list.Manifests[s.ID] = s.ManifestSHA256
		ids, went[s.ID] = append(ids, s.ID), true
	}
	parents := make(map[string]bool)
	stay := slices.Concat(slices.DeleteFunc(all, func(s index.Snapshot) bool { return went[s.ID] }), c.came)
	for _, s := range stay {
		parents[s.Parent] = true
	}
	for _, s := range stay {
		delete(parents, s.ID)
	}
	maps.DeleteFunc(list.Manifests, func(id, _ string) bool { return !parents[id] })
	if err := r.putDeleted(list); err != nil {
		return err
	}
	return r.db.Exchange(ids, c.came)
}
