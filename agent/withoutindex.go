package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
	"graphvol/fs/browse"
	"graphvol/fs/hold"
	"graphvol/index"
)

// withoutIndex is the service of a volume that is mounted though its index can't be used. It tells the state and lets itself be unmounted,
// or replaced by a server that may find the index readable; everything else is refused with the reason.
type withoutIndex struct {
	api.UnimplementedVolumeServer
	state   string
	facts   Facts
	version string
	started time.Time
	epoch   func() uint64
	why     *Error
	log     *slog.Logger

	upgrader upgrader
}

var _ api.VolumeServer = (*withoutIndex)(nil)

// Status implements the API.
func (w *withoutIndex) Status(context.Context, *api.StatusRequest) (*api.VolumeStatus, error) {
	res := &api.VolumeStatus{
		Backing: w.facts.Backing, State: w.state, Cache: w.facts.Cache, Snapdir: w.facts.SnapDir, Version: w.version, Started: timestamppb.New(w.started),
		Mount: w.facts.Mount, ServerPid: int64(os.Getpid()), Epoch: w.epoch(), Problem: w.why.Message,
		Server: thisProcess(), Program: []byte(os.Args[0]), Restart: w.upgrader.restartOf(),
	}
	if info, err := hold.ReadInfo(filepath.Join(w.state, hold.InfoFile)); err == nil {
		res.HolderPid = int64(info.Holder.PID)
	}
	return res, nil
}

// Unmount implements the API.
func (w *withoutIndex) Unmount(_ *api.UnmountRequest, stream api.Volume_UnmountServer) error {
	return stream.Send(&api.UnmountEvent{Ready: true})
}

// Resume implements the API.
func (w *withoutIndex) Resume(context.Context, *api.ResumeRequest) (*api.ResumeResponse, error) {
	return &api.ResumeResponse{}, nil
}

// Upgrade implements the API.
func (w *withoutIndex) Upgrade(req *api.UpgradeRequest, stream api.Volume_UpgradeServer) error {
	return w.upgrader.upgrade(req, stream, noWork{})
}

// noWork is what a server has under way that takes no snapshots.
type noWork struct{}

var _ work = noWork{}

func (noWork) quieten(*api.UpgradeRequest, api.Volume_UpgradeServer) error { return nil }
func (noWork) holdBack(time.Duration)                                      {}

// server makes the gRPC server.
func (w *withoutIndex) server() *grpc.Server {
	return newServer(w,
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, call grpc.UnaryHandler) (any, error) {
			res, err := call(ctx, req)
			return res, w.refusal(ctx, info.FullMethod, err)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, call grpc.StreamHandler) error {
			return w.refusal(s.Context(), info.FullMethod, call(srv, s))
		}))
}

func (w *withoutIndex) refusal(ctx context.Context, method string, err error) error {
	if status.Code(err) != codes.Unimplemented {
		return err
	}
	return statusOf(ctx, w.log, method, w.why)
}

// noCatalogue shows that there are snapshots that can't be read, rather than none.
type noCatalogue struct{ why error }

var _ browse.Catalogue = noCatalogue{}

// Snapshots fails.
func (c noCatalogue) Snapshots() ([]index.Snapshot, error) { return nil, c.why }

// Reader fails.
func (c noCatalogue) Reader(context.Context, index.Snapshot) (browse.Reader, error) {
	return nil, c.why
}
