package node

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
)

// maxConfig is the greatest length of a configuration in the centre.
const maxConfig = 512 << 10

// GetConfig implements the API.
func (s *clusterService) GetConfig(ctx context.Context, req *api.GetConfigRequest) (*api.ConfigText, error) {
	get := s.configs.Get
	if req.GetEffective() {
		get = s.configs.Effective
	}
	c, err := get(ctx, req.GetNode())
	if err != nil {
		return nil, statusOf(err)
	}
	return &api.ConfigText{Node: c.Node, Text: c.Text, Revision: c.Revision}, nil
}

// SetConfig implements the API.
func (s *clusterService) SetConfig(ctx context.Context, req *api.SetConfigRequest) (*api.ConfigText, error) {
	if name := req.GetNode(); name != "" {
		if err := config.CheckName(name); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "no node can have the %v", err)
		}
	}
	if err := s.checkCentral(req.GetText()); err != nil {
		return nil, status.Error(codes.InvalidArgument, agent.Message(err))
	}
	was := int64(-1)
	if req.Was != nil {
		was = req.GetWas()
	}
	rev, err := s.configs.Set(ctx, cluster.Config{Node: req.GetNode(), Text: req.GetText()}, was)
	if err != nil {
		return nil, statusOf(err)
	}
	return &api.ConfigText{Node: req.GetNode(), Text: req.GetText(), Revision: rev}, nil
}

// checkCentral refuses what no node would take.
func (s *clusterService) checkCentral(text string) error {
	if text == "" {
		return nil
	}
	if len(text) > maxConfig {
		return usage("the configuration has %d bytes, and at most %d are taken", len(text), maxConfig)
	}
	f, err := s.boot.WithCentre(text)
	if err == nil {
		_, err = newCurrent(f, 1)
	}
	if err != nil {
		return usage("the configuration is refused, and nothing is changed: %s", agent.Message(err))
	}
	return nil
}
