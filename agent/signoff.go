package agent

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/chunkstore/target"
	"graphvol/snapshot"
)

// SignOff implements the API.
func (s *service) SignOff(ctx context.Context, req *api.SignOffRequest) (*api.SignOffResponse, error) {
	if err := s.signOff(ctx, req); err != nil {
		return nil, statusOf(ctx, s.log, "storing the cluster's manifest", err)
	}
	s.remotes.kick()
	return &api.SignOffResponse{}, nil
}

func (s *service) signOff(ctx context.Context, req *api.SignOffRequest) error {
	name, p := snapshot.ClusterObject(req.GetId()), req.GetManifest()
	switch {
	case target.CheckName(name) != nil:
		return refuse(codes.InvalidArgument, fmt.Sprintf("%q can't be the id of a snapshot of the cluster", req.GetId()))
	case len(p) == 0:
		return s.repo.Target().Remove(ctx, name)
	case len(p) > snapshot.MaxManifest:
		return refuse(codes.InvalidArgument, fmt.Sprintf("the cluster's manifest has %d bytes, and at most %d can be stored", len(p), snapshot.MaxManifest))
	case !json.Valid(p):
		return refuse(codes.InvalidArgument, "the cluster's manifest is not JSON")
	}
	return target.Put(ctx, s.repo.Target(), name, p)
}
