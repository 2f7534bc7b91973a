package agent

import (
	"context"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/index"
	"graphvol/snapshot"
)

// RestoreTo restores as the service's Restore does, and also into the volume's own mount: from the directory of the
// snapshot there, in this process. progress and warn may be nil; they are called from several goroutines.
func (c *Client) RestoreTo(ctx context.Context, req *api.RestoreRequest, progress func(*api.Progress), warn func(error)) (*api.RestoreResult, error) {
	if c.Place.Mounted() && !c.Offline {
		dest, err := Canonical(string(req.GetDestination()))
		if err != nil {
			return nil, err
		}
		if within(dest, c.Place.Mount.Point) {
			res, err := c.restoreHere(ctx, dest, req, progress, warn)
			return res, restoreError(err)
		}
	}
	stream, err := c.VolumeClient.Restore(ctx, req)
	if err != nil {
		return nil, err
	}
	var res *api.RestoreResult
	err = api.Each(stream, func(ev *api.RestoreEvent) error {
		if p := ev.GetProgress(); p != nil && progress != nil {
			progress(p)
		}
		if ev.GetResult() != nil {
			res = ev.GetResult()
		}
		return nil
	})
	return res, err
}

// restoreHere restores into the mount.
func (c *Client) restoreHere(ctx context.Context, dest string, req *api.RestoreRequest, progress func(*api.Progress), warn func(error)) (*api.RestoreResult, error) {
	paths, err := cleanPaths(req.GetPaths())
	if err != nil {
		return nil, err
	}
	snap, err := c.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: req.GetSnapshot()})
	if err != nil {
		return nil, err
	}
	if snap.GetState() != index.StateComplete {
		return nil, refuse(codes.FailedPrecondition, fmt.Sprintf("the snapshot %s is %s: only a complete one can be restored", snap.GetName(), snap.GetState()))
	}
	status, err := c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		return nil, err
	}
	snapdir := filepath.Join(c.Place.Mount.Point, status.GetSnapdir())
	if within(dest, snapdir) {
		return nil, refuse(codes.InvalidArgument, fmt.Sprintf("the destination %s lies among the snapshots, which can't be written: choose another", dest))
	}
	from, err := snapshot.DirTree(filepath.Join(snapdir, snap.GetName()))
	if err != nil {
		return nil, fmt.Errorf("open the snapshot's directory: %w", err)
	}
	total := &api.Progress{TotalBytes: snap.GetBytes(), TotalFiles: snap.GetFiles()}
	if len(paths) > 0 {
		total.Reset()
	}
	meter := newMeter(func(p *api.Progress) error {
		if progress != nil {
			p.TotalBytes, p.TotalFiles = total.GetTotalBytes(), total.GetTotalFiles()
			progress(p)
		}
		return nil
	})
	r, err := snapshot.Restore(ctx, from, snapshot.RestoreOptions{
		Dest: dest, Paths: paths, Delete: req.GetDeleteExtra(), DryRun: req.GetDryRun(), Protect: []string{snapdir, c.Place.State}, Warn: warn,
		Progress: func(p snapshot.RestoreProgress) { meter.tell(&api.Progress{DoneBytes: p.Bytes, DoneFiles: p.Files}) },
	})
	if err != nil {
		return nil, err
	}
	return &api.RestoreResult{Files: r.Files, Bytes: r.Bytes, WrittenBytes: r.Written, Removed: r.Removed, Snapshot: snap}, nil
}
