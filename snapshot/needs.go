package snapshot

import (
	"context"
	"errors"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// Needs reports which complete snapshots, and which of their files, need what can't be read of packs.
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

// addLost notes the chunks of packs that can't be read. Of a pack whose own parts are damaged the index may still know where they are.
func (v *verifier) addLost(ctx context.Context, lost map[chunkstore.PackID]error) error {
	var rows []chunkstore.Located
	err := v.repo.db.ForEachChunk(func(id chunkstore.ID, l chunkstore.Location) error {
		if _, ok := lost[l.Pack]; ok {
			rows = append(rows, chunkstore.Located{ID: id, Location: l})
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	var buf []byte
	for i := range rows {
		if buf, err = v.read(ctx, &rows[i], buf); err != nil {
			return err
		}
	}
	return nil
}
