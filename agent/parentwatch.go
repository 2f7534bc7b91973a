package agent

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot"
)

// parentWatch is a sealer after which the next snapshot is a full one if what failed was to read the snapshot before. All that a seal
// reads from the store is of that one, and the one after would fail in the same way.
type parentWatch struct {
	sealer
	live live
}

func (w parentWatch) Seal(ctx context.Context, snap index.Snapshot, src snapshot.Source, progress func(snapshot.Progress)) (index.Snapshot, error) {
	snap, err := w.sealer.Seal(ctx, snap, src, progress)
	if errors.Is(err, chunkstore.ErrCorrupt) || errors.Is(err, chunkstore.ErrNotFound) {
		w.live.CountAsChanged()
		err = &Error{codes.DataLoss, fmt.Sprintf("the snapshot %s failed, since the one before it can't be read: take another, which will be a full one; graphvol verify tells what is damaged", snap.Name), err}
	}
	return snap, err
}
