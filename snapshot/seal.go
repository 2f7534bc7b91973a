package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// BeginOptions are facts that are known when a snapshot is asked for; they can also be set before Seal.
type BeginOptions struct {
	PauseNS int64    // how long the gate was closed, nanoseconds
	Epoch   uint64   // the epoch that the snapshot ends
	Tags    []string // in any order; CheckTag says which can be
	Hold    string   // why it can't be deleted when it is complete; empty: it can
}

// Begin enters a pending snapshot into the catalogue. An empty name is replaced by the time. The order of Begin must be that
// of the barriers. Seal or Abandon must follow, or later seals are refused. Errors: ErrBadName, ErrBadTag,
// index.ErrExists, index.ErrTooMany.
func (r *Repo) Begin(name string, opts BeginOptions) (index.Snapshot, error) {
	if name != "" {
		if err := CheckName(name); err != nil {
			return index.Snapshot{}, err
		}
	}
	tags, err := sortTags(opts.Tags)
	if err != nil {
		return index.Snapshot{}, err
	}
	snap := index.Snapshot{Name: name, Created: time.Now().UTC(), PauseNS: opts.PauseNS, Epoch: opts.Epoch, Tags: tags, Hold: opts.Hold}
	for n := 1; ; n++ {
		if name == "" {
			snap.Name = DefaultName(snap.Created, n)
		}
		err := r.db.AddPending(&snap)
		if err == nil {
			r.turns.add(snap.Seq)
			return snap, nil
		}
		if name != "" || !errors.Is(err, index.ErrExists) || n > 1000 {
			return index.Snapshot{}, fmt.Errorf("begin snapshot: %w", err)
		}
	}
}

// Abandon makes a snapshot that was begun and won't be sealed a failed one.
func (r *Repo) Abandon(snap index.Snapshot, cause error) error {
	r.turns.drop(snap.Seq)
	return r.db.Fail(snap.ID, cause.Error())
}

// Progress is what a running seal has done so far.
type Progress struct {
	Files  int64 // inodes looked at
	Bytes  int64 // read from the source
	Stored int64 // content handed to the store, before deduplication and compression
}

// progressEvery is how often Seal reports.
const progressEvery = 100 * time.Millisecond

// Seal stores a pending snapshot that Begin gave, until it is complete or failed. Seals must run one at a time, in the
// order of Begin; one that comes out of turn fails. It calls src.Release in any case. snap.PauseNS is recorded as it is passed
// here. progress may be nil; it is called from another goroutine, and not after Seal has returned. After an error the
// snapshot is failed, and the changes are part of the next one.
func (r *Repo) Seal(ctx context.Context, snap index.Snapshot, src Source, progress func(Progress)) (index.Snapshot, error) {
	err := r.turns.take(snap.Seq)
	if err == nil {
		defer r.turns.end()
		snap, err = r.seal(ctx, snap, src, progress)
	}
	if errors.Is(err, errNotBegun) {
		src.Release(false)
		return snap, err
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // who ended it says more than that it was ended
		}
		err = fmt.Errorf("seal snapshot %s: %w", snap.Name, err)
		if ferr := r.db.Fail(snap.ID, err.Error()); ferr != nil {
			r.log.ErrorContext(ctx, "that a snapshot failed is not stored yet", "snapshot", snap.Name, "error", ferr)
		}
		snap.State, snap.Error = index.StateFailed, err.Error()
		r.log.ErrorContext(ctx, "snapshot failed; what changed is part of the next one", "snapshot", snap.Name, "error", err)
	}
	src.Release(err == nil)
	if err != nil {
		r.forgetFailed(context.WithoutCancel(ctx))
	} else {
		// After Release: only now the source's volume knows what "unchanged since this snapshot" means.
		if berr := r.loadBase(context.WithoutCancel(ctx)); berr != nil {
			r.log.WarnContext(ctx, "reads are not taken from the live volume", "error", berr)
		}
	}
	return snap, err
}

// errParentGone says that the snapshot which the dirty map is relative to was deleted between the barrier and the seal.
var errParentGone = errors.New("the snapshot before was deleted while this one waited for its turn; take another, which will be a full one")

// parent gives the newest complete snapshot.
func (r *Repo) parent(src Source) (snap index.Snapshot, ok bool, err error) {
	sealed, err := r.db.SealedEpoch()
	if err != nil {
		return snap, false, err
	}
	snap, ok, err = r.Newest()
	if err == nil && !src.Full() && snap.Epoch < sealed {
		err = errParentGone
	}
	return snap, ok, err
}

// seal is Seal, when it is the snapshot's turn.
func (r *Repo) seal(ctx context.Context, snap index.Snapshot, src Source, progress func(Progress)) (index.Snapshot, error) {
	start := time.Now()
	snap.Epoch = src.Epoch()
	parent, hasParent, err := r.parent(src)
	if err != nil {
		return snap, err
	}
	w := r.store.NewWriter(ctx)
	defer w.Close()
	s := newSealer(ctx, r, src, w)
	snap.Kind = index.KindFull
	if hasParent {
		if err := r.pin(parent); err != nil {
			return snap, err
		}
		defer r.unpin(parent.ID)
		snap.Parent = parent.ID
		if !src.Full() {
			snap.Kind = index.KindIncremental
			if s.parent, err = r.readRoot(ctx, parent); err != nil {
				return snap, err
			}
		}
	}
	r.prints.sealing.Lock()
	defer r.prints.sealing.Unlock()
	stop := s.report(progress)
	root, err := s.run(snap.Kind == index.KindFull)
	stop()
	if err != nil {
		w.Abort()
		return snap, err
	}
	snap.Files, snap.Bytes, snap.DirtyBytes = root.Files, root.Bytes, s.dirtyBytes.Load()
	return r.commit(ctx, snap, parent, s, &root, start)
}

// commit makes what was put durable, in the order of the package documentation.
func (r *Repo) commit(ctx context.Context, snap, parent index.Snapshot, s *sealer, root *tree.Root, start time.Time) (index.Snapshot, error) {
	var err error
	if snap.Root, err = s.w.Put(root.Encode()); err != nil {
		s.w.Abort()
		return snap, fmt.Errorf("store the root: %w", err)
	}
	written, err := s.w.Finish()
	if err != nil {
		return snap, err
	}
	snap, err = r.putManifest(ctx, snap, parent, written)
	if err != nil {
		s.w.Abort()
		return snap, err
	}
	snap.SealNS = time.Since(start).Nanoseconds()
	// From here on the index may refer to the packs, even after an error: they stay.
	if err := r.db.Complete(index.Commit{Snapshot: snap, Chunks: written.Chunks}); err != nil {
		return snap, err
	}
	snap.State = index.StateComplete
	r.log.InfoContext(ctx, "snapshot complete", "snapshot", snap.Name, "id", snap.ID, "kind", snap.Kind, "dirty_bytes", snap.DirtyBytes,
		"stored_bytes", snap.StoredBytes, "seal", time.Since(start))
	return snap, nil
}

func (r *Repo) putManifest(ctx context.Context, snap, parent index.Snapshot, written chunkstore.Written) (index.Snapshot, error) {
	m := Manifest{
		FormatVersion:  ManifestVersion,
		SnapshotID:     snap.ID,
		Name:           snap.Name,
		Tags:           snap.Tags,
		Created:        snap.Created,
		ChecksumSHA256: snap.Root.String(),
		NodeTopology:   Topology{Nodes: []TopologyNode{{Name: r.cfg.Node}}},
		Volume:         r.volume,
		Kind:           snap.Kind,
		Files:          snap.Files,
		Bytes:          snap.Bytes,
		DirtyBytes:     snap.DirtyBytes,
	}
	if snap.Parent != "" {
		m.Parent, m.ParentManifestSHA256 = parent.ID, parent.ManifestSHA256
	}
	p, err := m.encodeCounted(written.StoredBytes)
	if err != nil {
		return snap, err
	}
	if err := target.Put(ctx, r.target, ManifestObject(snap.ID), p); err != nil {
		return snap, fmt.Errorf("store the manifest: %w", err)
	}
	snap.StoredBytes, snap.ManifestSHA256 = m.StoredBytes, hashHex(p)
	return snap, nil
}
