package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/remote"
)

// attachName begins the names of directories, in the agent's state, in which a copy is attached for a restore.
const attachName = "restore-"

// RestoreVolume implements the API.
func (s *nodeService) RestoreVolume(req *api.RestoreVolumeRequest, stream api.Node_RestoreVolumeServer) error {
	ctx := stream.Context()
	c, done, err := s.restoreSource(ctx, req)
	if err != nil {
		return volumeStatus(err)
	}
	err = restoreFrom(ctx, c, req, stream)
	if derr := done(); err == nil {
		err = derr
	}
	return volumeStatus(err)
}

// restoreSource gives a client of the volume that is asked for, or of one of its copies. done ends it.
func (n *Node) restoreSource(ctx context.Context, req *api.RestoreVolumeRequest) (c *agent.Client, done func() error, err error) {
	if v := n.now.Load().find(req.GetVolume()); v != nil && req.GetNode() == n.name {
		p, err := agent.Resolve(v.opts.State)
		if err == nil {
			c, err = agent.Connect(ctx, p, io.Discard) // mounted or not
		}
		if err != nil {
			return nil, nil, v.said(err)
		}
		return c, c.Close, nil
	}
	if len(req.GetCopies()) == 0 {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "the volume %s of %s is not on this node and had no copies when the snapshot was taken: restore it on %s", req.GetVolume(), req.GetNode(), req.GetNode())
	}
	var errs []error
	for _, copied := range req.GetCopies() {
		c, done, err := n.attach(ctx, copied)
		if err == nil {
			return c, done, nil
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}

// attach makes a volume of a copy, for as long as it is needed.
func (n *Node) attach(ctx context.Context, copied *api.RemoteInfo) (c *agent.Client, done func() error, err error) {
	dir, err := os.MkdirTemp(n.state, attachName)
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	state := filepath.Join(dir, "state")
	spec := remote.Spec{URLs: copied.GetUrls(), Erasure: copied.GetErasure()}
	if _, err := agent.Attach(ctx, spec, agent.KeySource{}, state, nil, io.Discard); err != nil {
		if copied.GetEncrypted() {
			err = fmt.Errorf("%s; the copy is encrypted: attach it on this node with its key (graphvol attach --key), and restore from that (graphvol restore)", agent.Message(err))
		}
		return nil, nil, errors.Join(err, remove())
	}
	c, err = agent.Connect(ctx, agent.Place{State: state}, io.Discard)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return c, func() error { return errors.Join(c.Close(), remove()) }, nil
}

func restoreFrom(ctx context.Context, c *agent.Client, req *api.RestoreVolumeRequest, stream api.Node_RestoreVolumeServer) error {
	in, err := c.Restore(ctx, &api.RestoreRequest{Snapshot: req.GetSnapshot(), Destination: req.GetDestination()})
	if err != nil {
		return err
	}
	return api.Each(in, stream.Send)
}

// removeAttached removes what restores have left that were interrupted.
func (n *Node) removeAttached() {
	left, err := filepath.Glob(filepath.Join(n.state, attachName+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		n.log.Warn("what a restore has left is not removed", "err", err)
	}
}

// ReadMetadata implements the API.
func (s *nodeService) ReadMetadata(ctx context.Context, _ *api.ReadMetadataRequest) (*api.ReadMetadataResponse, error) {
	provider := s.now.Load().metadata
	if provider == nil {
		return &api.ReadMetadataResponse{}, nil
	}
	m, err := provider.Read(ctx)
	if err != nil {
		return nil, metadataStatus(err)
	}
	return &api.ReadMetadataResponse{Metadata: m.Encode()}, nil
}
