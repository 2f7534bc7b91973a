package agent

import (
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
		return statusOf(s.log, "the restore", err)
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
	r, err := snapshot.Restore(stream.Context(), rd, snapshot.RestoreOptions{
		Dest: dest, Paths: paths, Delete: req.GetDeleteExtra(), DryRun: req.GetDryRun(), Protect: s.protected(),
		Progress: func(p snapshot.RestoreProgress) {
			meter.tell(&api.Progress{DoneBytes: p.Bytes, TotalBytes: p.TotalBytes, DoneFiles: p.Files, TotalFiles: p.TotalFiles})
		},
		Warn: func(err error) { s.log.Warn("restore", "destination", dest, "err", err) },
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("restored", "snapshot", rd.Snapshot().Name, "destination", dest, "files", r.Files, "written", r.Written, "took", time.Since(begin))
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
	over := s.facts.Mount == s.facts.Backing
	if s.live != nil && !over && within(real, s.facts.Backing) {
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("the destination %s lies in the backing directory of a mounted volume, where changes are not seen: restore to the mount %s instead, or unmount first", dest, s.facts.Mount))
	}
	if s.live != nil && within(real, filepath.Join(s.facts.Mount, s.facts.SnapDir)) {
		return "", refuse(codes.InvalidArgument, fmt.Sprintf("the destination %s lies among the snapshots, which can't be written: choose another", dest))
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
