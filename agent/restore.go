package agent

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/snapshot"
)

// Restore implements the API.
func (s *service) Restore(req *api.RestoreRequest, stream api.Volume_RestoreServer) error {
	res, err := s.restore(req, stream)
	if err != nil {
		return statusOf(stream.Context(), s.log, "the restore", restoreError(err))
	}
	return stream.Send(&api.RestoreEvent{Result: res})
}

func (s *service) restore(req *api.RestoreRequest, stream api.Volume_RestoreServer) (*api.RestoreResult, error) {
	dest, err := s.destination(string(req.GetDestination()))
	if err != nil {
		return nil, err
	}
	paths, err := cleanPaths(req.GetPaths())
	if err != nil {
		return nil, err
	}
	rd, err := s.reader(stream.Context(), req.GetSnapshot())
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	begin := time.Now()
	meter := newMeter(func(p *api.Progress) error { return stream.Send(&api.RestoreEvent{Progress: p}) })
	r, err := snapshot.Restore(stream.Context(), rd.Tree(), snapshot.RestoreOptions{
		Dest: dest, Paths: paths, Delete: req.GetDeleteExtra(), DryRun: req.GetDryRun(), Protect: s.protected(),
		Progress: func(p snapshot.RestoreProgress) {
			meter.tell(&api.Progress{DoneBytes: p.Bytes, TotalBytes: p.TotalBytes, DoneFiles: p.Files, TotalFiles: p.TotalFiles})
		},
		Warn: func(err error) { s.log.WarnContext(stream.Context(), "restore", "destination", dest, "err", err) },
	})
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(stream.Context(), "restored", "snapshot", rd.Snapshot().Name, "destination", dest, "files", r.Files, "written", r.Written, "took", time.Since(begin))
	return &api.RestoreResult{
		Files: r.Files, Bytes: r.Bytes, WrittenBytes: r.Written, Removed: r.Removed, Snapshot: infoOf(rd.Snapshot()),
	}, nil
}

// destination refuses what would go behind the layer's back.
func (s *service) destination(dest string) (string, error) {
	if !filepath.IsAbs(dest) {
		return "", refuse(codes.InvalidArgument, fmt.Sprintf("the destination %q must be an absolute path", dest))
	}
	real, err := Canonical(dest)
	if err != nil {
		return "", err
	}
	if within(real, s.state) {
		return "", refuse(codes.InvalidArgument, fmt.Sprintf("the destination %s lies in the volume's state directory: choose another", dest))
	}
	if s.live != nil && within(real, s.facts.Mount) {
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("the destination %s lies in the volume's own mount, which only the command itself can restore: use graphvol restore of this version", dest))
	}
	if s.live != nil && within(real, s.facts.Backing) {
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("the destination %s lies in the backing directory of a mounted volume, where changes are not seen: restore to the mount %s instead, or unmount first", dest, s.facts.Mount))
	}
	return real, nil
}

// protected tells directories that a restore must not write into by any path.
func (s *service) protected() []string {
	dirs := []string{s.state}
	if s.live != nil && s.facts.Mount != s.facts.Backing {
		dirs = append(dirs, s.facts.Backing)
	}
	return dirs
}

// cleanPaths makes paths relative to the volume's root.
func cleanPaths(paths [][]byte) ([]string, error) {
	var out []string
	for _, raw := range paths {
		p := string(raw)
		clean := strings.TrimPrefix(path.Clean("/"+p), "/")
		for _, part := range strings.Split(p, "/") {
			if part == ".." {
				return nil, refuse(codes.InvalidArgument, fmt.Sprintf("the path %q must not hold \"..\": name it from the volume's root", p))
			}
		}
		if clean == "" {
			return nil, nil // the root: all
		}
		out = append(out, clean)
	}
	return out, nil
}

// restoreError translates what a restore refuses for people.
func restoreError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, snapshot.ErrNoPath):
		return &Error{codes.NotFound, err.Error() + "; look for it in MOUNT/.snapshots or with graphvol diff", err}
	case errors.Is(err, snapshot.ErrInTheWay):
		return &Error{codes.FailedPrecondition, err.Error(), err}
	case errors.Is(err, snapshot.ErrProtected):
		return &Error{codes.InvalidArgument, err.Error() + ": choose another destination", err}
	}
	return err
}
