package node

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/graphmeta"
)

// maxMetadata is the greatest length of the metadata in a snapshot of the cluster: etcd and the manifest have that of all nodes.
const maxMetadata = 256 << 10

// readMetadata reads what the graph is, for a snapshot. A graph that is being changed is codes.Aborted, which has the coordinator try again.
func (p *part) readMetadata(ctx context.Context) ([]byte, error) {
	if p.metadata == nil {
		return nil, nil
	}
	m, err := p.metadata.Read(ctx)
	if err != nil {
		return nil, metadataStatus(err)
	}
	text := m.Encode()
	if len(text) > maxMetadata {
		return nil, status.Errorf(codes.FailedPrecondition, "the graph's metadata has %d bytes, and at most %d can be stored with a snapshot: have its source leave out what a restore doesn't need", len(text), maxMetadata)
	}
	p.before = m
	return text, nil
}

// checkMetadata fails if the graph was changed since readMetadata.
func (p *part) checkMetadata(ctx context.Context) error {
	if p.before == nil {
		return nil
	}
	after, err := p.metadata.Read(ctx)
	if err != nil {
		return metadataStatus(err)
	}
	if changed := graphmeta.Compare(p.before, after); changed != "" {
		return status.Error(codes.Aborted, fmt.Sprintf("the graph was changed while the snapshot was taken, so it is not kept: %s", changed))
	}
	return nil
}

func metadataStatus(err error) error {
	code := codes.FailedPrecondition
	if errors.Is(err, graphmeta.ErrInProgress) {
		code = codes.Aborted
	}
	return status.Error(code, "the graph's metadata: "+err.Error())
}
