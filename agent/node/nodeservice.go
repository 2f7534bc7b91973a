package node

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
)

// nodeService is what other agents ask.
type nodeService struct {
	api.UnimplementedNodeServer
	*Node
}

// Part implements the API.
func (s *nodeService) Part(stream api.Node_PartServer) error {
	return cluster.ServePart(stream, &s.terms, func(id, name string) cluster.Local { return s.newPart(stream.Context(), id, name) })
}

// Outcome implements the API.
func (s *nodeService) Outcome(ctx context.Context, req *api.OutcomeRequest) (*api.OutcomeResponse, error) {
	res := &api.OutcomeResponse{}
	for _, asked := range req.GetVolumes() {
		part := &api.VolumePart{Volume: asked.GetVolume()}
		res.Volumes = append(res.Volumes, part)
		v := s.now.Load().find(asked.GetVolume())
		if v == nil {
			part.Error = "the node has no such volume any more"
			continue
		}
		info, err := v.snapshot(ctx, asked.GetSnapshot().GetId())
		switch {
		case status.Code(err) == codes.NotFound:
			part.Error = "its snapshot is not there"
		case err != nil:
			return nil, status.Error(codes.Unavailable, agent.Message(v.said(err))) // to be asked again
		default:
			part.Snapshot, part.Error = info, info.GetError()
		}
	}
	return res, nil
}

// snapshot asks the volume for one of its snapshots.
func (v *volume) snapshot(ctx context.Context, id string) (*api.SnapshotInfo, error) {
	c, err := v.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: id})
}
