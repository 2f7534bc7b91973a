package snapshot

import (
	"context"
	"errors"

	"graphvol/index"
)

var errLater = errors.New("not in this build")

// RestoreOptions say what to restore and where to.
type RestoreOptions struct {
	Dest     string   // an absolute path; made if it doesn't exist
	Paths    []string // relative to the volume's root; none: all
	Delete   bool     // remove what the snapshot doesn't have
	DryRun   bool     // change nothing, only tell
	Workers  int
	Protect  []string // directories that must not be written to by any path
	Progress func(RestoreProgress)
	Warn     func(error)
}

// RestoreProgress is what a restore has done so far.
type RestoreProgress struct{ Bytes, TotalBytes, Files, TotalFiles int64 }

// RestoreResult is what a restore did.
type RestoreResult struct{ Files, Bytes, Written, Removed int64 }

// Restore writes a snapshot's files to a directory.
func Restore(ctx context.Context, rd *Reader, opts RestoreOptions) (RestoreResult, error) {
	return RestoreResult{}, errLater
}

// PruneOptions say what pruning does.
type PruneOptions struct {
	DryRun   bool
	Progress func(PruneProgress)
}

// PruneProgress is what pruning has done so far.
type PruneProgress struct{ Bytes, TotalBytes int64 }

// VerifyOptions say what verifying does.
type VerifyOptions struct {
	ReadData bool
	Report   func(Problem)
	Progress func(VerifyProgress)
}

// VerifyProgress is what verifying has done so far.
type VerifyProgress struct{ Bytes, TotalBytes int64 }

// Problem is something that Verify found.
type Problem struct {
	Snapshot, Path string
	Err            error
}

// VerifyResult is what Verify looked at.
type VerifyResult struct{ Snapshots, Chunks, Bytes int64 }

// Verify checks snapshots.
func (r *Repo) Verify(ctx context.Context, snaps []index.Snapshot, opts VerifyOptions) (VerifyResult, error) {
	return VerifyResult{}, errLater
}

// Delete removes snapshots from the catalogue.
func (r *Repo) Delete(ctx context.Context, snaps []index.Snapshot) error { return errLater }

// PruneResult is what pruning did.
type PruneResult struct{ RemovedPacks, RewrittenPacks, FreedBytes int64 }

// Prune removes what no snapshot needs.
func (r *Repo) Prune(ctx context.Context, opts PruneOptions) (PruneResult, error) {
	return PruneResult{}, errLater
}
