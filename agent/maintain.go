package agent

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/index"
	"graphvol/snapshot"
)

// Delete implements the API.
func (s *service) Delete(ctx context.Context, req *api.DeleteRequest) (*api.DeleteResponse, error) {
	if len(req.GetSnapshots()) == 0 {
		return nil, refuse(codes.InvalidArgument, "name the snapshots to delete")
	}
	snaps, err := s.resolveAll(req.GetSnapshots())
	if err == nil {
		err = s.delete(ctx, snaps)
	}
	if err != nil {
		return nil, statusOf(ctx, s.log, "the deletion", err)
	}
	res := &api.DeleteResponse{}
	for _, snap := range snaps {
		s.log.InfoContext(ctx, "deleted", "id", snap.ID, "name", snap.Name)
		res.Deleted = append(res.Deleted, infoOf(snap))
	}
	return res, nil
}

func (s *service) delete(ctx context.Context, snaps []index.Snapshot) error {
	for _, snap := range snaps {
		if snap.State == index.StatePending {
			return refuse(codes.FailedPrecondition, fmt.Sprintf("the snapshot %s is still being stored: wait until it is complete", snap.Name))
		}
	}
	if err := s.repo.Delete(ctx, snaps); err != nil {
		return err
	}
	s.changed(ctx)
	return nil
}

// Hold implements the API.
func (s *service) Hold(ctx context.Context, req *api.HoldRequest) (*api.HoldResponse, error) {
	if len(req.GetSnapshots()) == 0 {
		return nil, refuse(codes.InvalidArgument, "name the snapshots")
	}
	snaps, err := s.resolveAll(req.GetSnapshots())
	if err == nil {
		err = s.repo.Hold(req.GetReason(), snaps)
	}
	if err != nil {
		return nil, statusOf(ctx, s.log, "the hold", err)
	}
	res := &api.HoldResponse{}
	for _, snap := range snaps {
		snap.Hold = req.GetReason()
		s.log.InfoContext(ctx, "held", "id", snap.ID, "name", snap.Name, "reason", snap.Hold)
		res.Snapshots = append(res.Snapshots, infoOf(snap))
	}
	return res, nil
}

// Prune implements the API.
func (s *service) Prune(req *api.PruneRequest, stream api.Volume_PruneServer) error {
	meter := newMeter(func(p *api.Progress) error { return stream.Send(&api.PruneEvent{Progress: p}) })
	opts := snapshot.PruneOptions{
		DryRun: req.GetDryRun(),
		Progress: func(p snapshot.PruneProgress) {
			meter.tell(&api.Progress{DoneBytes: p.Bytes, TotalBytes: p.TotalBytes})
		},
	}
	if req.MaxUnusedPercent != nil {
		percent := int(req.GetMaxUnusedPercent())
		opts.MaxUnused = &percent
	}
	r, err := s.repo.Prune(stream.Context(), opts)
	if err != nil {
		return statusOf(stream.Context(), s.log, "pruning", err)
	}
	s.remotes.kick()
	return stream.Send(&api.PruneEvent{Result: &api.PruneResult{
		ChunksRemoved: r.RemovedChunks, PacksRemoved: r.RemovedPacks, PacksRewritten: r.RewrittenPacks, FreedBytes: r.FreedBytes, StoreBytes: r.StoreBytes,
		UnusedBytes: r.UnusedBytes,
	}})
}

// Verify implements the API.
func (s *service) Verify(req *api.VerifyRequest, stream api.Volume_VerifyServer) error {
	snaps, err := s.resolveAll(req.GetSnapshots())
	if err != nil {
		return statusOf(stream.Context(), s.log, "verifying", err)
	}
	for _, snap := range snaps {
		if snap.State != index.StateComplete {
			return statusOf(stream.Context(), s.log, "verifying", refuse(codes.FailedPrecondition, fmt.Sprintf("the snapshot %s is %s: only complete ones can be verified", snap.Name, snap.State)))
		}
	}
	meter := newMeter(func(p *api.Progress) error { return stream.Send(&api.VerifyEvent{Progress: p}) })
	var problems int64
	r, err := s.repo.Verify(stream.Context(), snaps, snapshot.VerifyOptions{
		ReadData: req.GetReadData(),
		Report: func(p snapshot.Problem) {
			problems++
			s.log.ErrorContext(stream.Context(), "verify found a problem", "snapshot", p.Snapshot, "path", p.Path, "err", p.Err)
			meter.send(func() error {
				return stream.Send(&api.VerifyEvent{Problem: &api.VerifyProblem{Snapshot: p.Snapshot, Path: []byte(p.Path), Message: p.Err.Error()}})
			})
		},
		Progress: func(p snapshot.VerifyProgress) {
			meter.tell(&api.Progress{DoneBytes: p.Bytes, TotalBytes: p.TotalBytes})
		},
	})
	if err != nil {
		return statusOf(stream.Context(), s.log, "verifying", err)
	}
	return stream.Send(&api.VerifyEvent{Result: &api.VerifyResult{Snapshots: r.Snapshots, Chunks: r.Chunks, Bytes: r.Bytes, Problems: problems}})
}
