package agent

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
)

// storeService is the API of a mounted store: what only reads is a volume's, the rest is refused.
type storeService struct {
	*service
	store *storeServer
}

var _ api.VolumeServer = (*storeService)(nil)

func newStoreService(s *storeServer, version string) *storeService {
	return &storeService{store: s, service: newService(serviceConfig{
		state: s.cache, facts: Facts{Mount: s.opts.Mount}, repo: s.repo, log: s.log, version: version,
	})}
}

func (s *storeService) refuse() error {
	return refuse(codes.FailedPrecondition, fmt.Sprintf("%s is a mounted copy of a store, which is only read: do this with the volume itself, or attach the copy (graphvol attach)", s.facts.Mount))
}

// ListSnapshots implements the API.
func (s *storeService) ListSnapshots(ctx context.Context, req *api.ListSnapshotsRequest) (*api.ListSnapshotsResponse, error) {
	s.store.source.Fresh(ctx.Done())
	return s.service.ListSnapshots(ctx, req)
}

// Status implements the API.
func (s *storeService) Status(ctx context.Context, _ *api.StatusRequest) (*api.VolumeStatus, error) {
	list, err := s.repo.Snapshots()
	if err != nil {
		return nil, statusOf(ctx, s.log, "reading the catalogue", err)
	}
	o := s.store.opts
	return &api.VolumeStatus{
		Mount: o.Mount, State: s.state, ServerPid: int64(os.Getpid()), Server: thisProcess(), Snapshots: int64(len(list)), StoreBytes: s.store.source.storeBytes(),
		Version: s.version, Started: timestamppb.New(s.started), Problem: s.store.outage.problem(), Program: []byte(os.Args[0]),
		Remotes: []*api.RemoteInfo{{
			Name: attachedName, Urls: o.URLs, Erasure: o.Erasure, Encrypted: s.store.spec.Encrypt,
			Sequence: s.store.copy.Newest().Sequence, Snapshots: int64(len(list)),
		}},
	}, nil
}

// Unmount implements the API: nothing is pending.
func (s *storeService) Unmount(_ *api.UnmountRequest, stream api.Volume_UnmountServer) error {
	return stream.Send(&api.UnmountEvent{Ready: true})
}

// Snapshot is refused.
func (s *storeService) Snapshot(*api.SnapshotRequest, api.Volume_SnapshotServer) error {
	return s.refuse()
}

// Dirty is refused.
func (s *storeService) Dirty(*api.DirtyRequest, api.Volume_DirtyServer) error { return s.refuse() }

// Delete is refused.
func (s *storeService) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return nil, s.refuse()
}

// Hold is refused.
func (s *storeService) Hold(context.Context, *api.HoldRequest) (*api.HoldResponse, error) {
	return nil, s.refuse()
}

// Prune is refused.
func (s *storeService) Prune(*api.PruneRequest, api.Volume_PruneServer) error { return s.refuse() }

// Sync is refused.
func (s *storeService) Sync(*api.SyncRequest, api.Volume_SyncServer) error { return s.refuse() }

// Upgrade is refused.
func (s *storeService) Upgrade(*api.UpgradeRequest, api.Volume_UpgradeServer) error {
	return refuse(codes.FailedPrecondition, fmt.Sprintf("%s is a mounted copy of a store, which has no server that could be replaced: unmount it, and mount it again", s.facts.Mount))
}
