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
	var c config.Central
	var err error
	if req.GetEffective() {
		var centre cluster.Centre
		centre, err = s.configs.For(ctx, req.GetNode())
		c = centre.Effective()
	} else {
		c, err = s.configs.Get(ctx, req.GetNode())
	}
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
	rev, err := s.configs.Set(ctx, config.Central{Node: req.GetNode(), Text: req.GetText()}, was)
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
		_, err = newCurrent(f, config.Central{})
	}
	if err != nil {
		return usage("the configuration is refused, and nothing is changed: %s", agent.Message(err))
	}
	return nil
}

// RestoreConfig implements the API.
func (s *clusterService) RestoreConfig(ctx context.Context, req *api.RestoreConfigRequest) (*api.RestoreConfigResponse, error) {
	all, err := s.configs.Restore(ctx, req.GetDryRun())
	if err != nil {
		return nil, statusOf(err)
	}
	res := &api.RestoreConfigResponse{}
	for _, r := range all {
		res.Restored = append(res.Restored, &api.RestoredConfig{Node: r.Node, Was: r.Revision, Revision: r.Now, From: r.From, Older: r.Older})
	}
	return res, nil
}
