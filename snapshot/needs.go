package snapshot

import (
	"context"
	"errors"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// Needs reports which complete snapshots, and which of their files, need what is lost of packs: of each the chunks that its error of VerifyPack tells of, or all.
func (r *Repo) Needs(ctx context.Context, lost map[chunkstore.PackID]error, report func(Problem)) error {
	v := &verifier{repo: r, opts: VerifyOptions{Report: report}, bad: badChunks{errs: make(map[chunkstore.ID]error)}}
	v.nodes = tree.NewNodes(countingGetter{r.store, &v.bytes}, verifyNodes)
	if err := v.addLost(ctx, lost); err != nil {
		return err
	}
	all, err := r.Snapshots()
	if err != nil {
		return err
	}
	var snaps []index.Snapshot
	for _, s := range all {
		if s.State != index.StateComplete {
			continue
		}
		if err := r.pin(s); errors.Is(err, ErrNoSnapshot) {
			continue
		} else if err != nil {
			return err
		}
		defer r.unpin(s.ID)
		snaps = append(snaps, s)
	}
	return v.blame(ctx, snaps)
}

// addLost notes the chunks of packs that can't be had.
func (v *verifier) addLost(ctx context.Context, lost map[chunkstore.PackID]error) error {
	single := make(map[chunkstore.PackID]map[chunkstore.ID]bool) // of packs that are whole but for some chunks
	for pack, damage := range lost {
		if bad, whole := chunkstore.BadChunks(damage); whole {
			single[pack] = make(map[chunkstore.ID]bool)
			for _, id := range bad {
				single[pack][id] = true
			}
		}
	}
	return v.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		damage, ok := lost[l.Pack]
		if chunks := single[l.Pack]; ok && (chunks == nil || chunks[id]) {
			v.bad.add(id, damage)
		}
		return ctx.Err()
	})
}
