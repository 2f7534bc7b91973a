package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
	"graphvol/fs/hold"
	"graphvol/index"
	"graphvol/snapshot"
)

// serviceConfig says what a service serves.
type serviceConfig struct {
	state   string
	facts   Facts
	repo    *snapshot.Repo
	live    live   // nil: not mounted
	holder  holder // set if live is
	remotes *remotes
	log     *slog.Logger
	version string
	problem string // what status shows

	timeout    time.Duration // from a call to its barrier
	stall      time.Duration // of a seal that makes no progress
	maxPending int
	// onChange is called after the catalogue has changed; nil: not at all.
	onChange func() error
}

// changedBound is how long is waited for a change of the catalogue to be shown.
const changedBound = time.Second

// service implements the API over a volume's snapshots, and over the live volume if it is mounted.
type service struct {
	api.UnimplementedVolumeServer
	serviceConfig
	started time.Time
	ended   context.Context // ends with finish
	end     context.CancelFunc
	queue   *sealQueue
	order   sync.Mutex // held from a barrier until its snapshot is in the catalogue and in the queue
	calls   calls

	upgrader upgrader // of a mounted volume

	mu struct {
		sync.Mutex
		unmounting time.Time // no snapshot begins before this; zero: none is prevented
		scanned    bool
	}
}

var _ api.VolumeServer = (*service)(nil)

func newService(cfg serviceConfig) *service {
	if cfg.remotes == nil {
		cfg.remotes = &remotes{state: cfg.state, repo: cfg.repo, log: cfg.log}
	}
	s := &service{serviceConfig: cfg, started: time.Now()}
	s.ended, s.end = context.WithCancel(context.Background())
	if cfg.live != nil {
		s.upgrader = upgrader{holder: cfg.holder, mount: cfg.facts.Mount, log: cfg.log}
		s.queue = newSealQueue(parentWatch{cfg.repo, cfg.live}, cfg.maxPending, cfg.stall, s.changed, cfg.log)
		go s.awaitScan()
	}
	return s
}

// awaitScan notes when the scan for changes made while unmounted has ended.
func (s *service) awaitScan() {
	err := s.live.WaitScan(s.ended)
	if s.ended.Err() != nil {
		return
	}
	if err != nil {
		s.log.Warn("looking for changes made while the volume was not mounted failed", "err", err)
	}
	s.mu.Lock()
	s.mu.scanned = true
	s.mu.Unlock()
}

// finish ends the taking of snapshots, and what runs in the background: those that are pending are sealed, or dropped when ctx ends.
func (s *service) finish(ctx context.Context) {
	s.end()
	if s.queue != nil {
		s.holdBack(closeBound)
		s.queue.close(ctx)
	}
}

// changed tells who shows the catalogue that it is another one now. Telling the kernel may have to wait for a look-up that
// itself waits for a seal, so nobody waits for it for long.
func (s *service) changed(ctx context.Context) {
	s.remotes.kick()
	if s.onChange == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.onChange(); err != nil {
			s.log.WarnContext(ctx, "the directory of snapshots is shown late", "err", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(changedBound):
	}
}

// holdBack keeps snapshots from beginning for a while; not for ever, since who asked for it may be gone.
func (s *service) holdBack(d time.Duration) {
	s.mu.Lock()
	s.mu.unmounting = time.Now().Add(d)
	s.mu.Unlock()
}

func (s *service) heldBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.mu.unmounting)
}

// ListSnapshots implements the API.
func (s *service) ListSnapshots(ctx context.Context, _ *api.ListSnapshotsRequest) (*api.ListSnapshotsResponse, error) {
	list, err := s.repo.Snapshots()
	if err != nil {
		return nil, statusOf(ctx, s.log, "listing the snapshots", err)
	}
	res := &api.ListSnapshotsResponse{}
	for _, snap := range list {
		res.Snapshots = append(res.Snapshots, infoOf(snap))
	}
	s.remotes.mark(ctx, res.Snapshots)
	return res, nil
}

// GetSnapshot implements the API.
func (s *service) GetSnapshot(ctx context.Context, req *api.GetSnapshotRequest) (*api.SnapshotInfo, error) {
	snap, err := s.repo.Resolve(req.GetSnapshot())
	if err != nil {
		return nil, statusOf(ctx, s.log, "finding the snapshot", err)
	}
	info := infoOf(snap)
	s.remotes.mark(ctx, []*api.SnapshotInfo{info})
	return info, nil
}

// Status implements the API.
func (s *service) Status(ctx context.Context, req *api.StatusRequest) (*api.VolumeStatus, error) {
	list, err := s.repo.Snapshots()
	if err != nil {
		return nil, statusOf(ctx, s.log, "reading the catalogue", err)
	}
	res := &api.VolumeStatus{
		Backing: s.facts.Backing, State: s.state, Cache: s.facts.Cache, Snapdir: s.facts.SnapDir, Version: s.version, Started: timestamppb.New(s.started),
		Problem: s.problem,
	}
	count(list, res)
	if !req.GetWithoutSizes() {
		if err := s.sizes(ctx, res); err != nil {
			return nil, err
		}
	}
	if res.Remotes, err = s.remotes.infos(); err != nil && res.Problem == "" {
		res.Problem = s.remotes.problem(ctx, err)
	}
	if s.live == nil {
		return res, nil
	}
	res.Mount, res.ServerPid, res.Server = s.facts.Mount, int64(os.Getpid()), thisProcess()
	res.Program, res.Restart = []byte(os.Args[0]), s.upgrader.restartOf()
	if info, err := hold.ReadInfo(filepath.Join(s.state, hold.InfoFile)); err == nil {
		res.HolderPid = int64(info.Holder.PID)
	}
	res.Epoch = s.live.Epoch()
	s.mu.Lock()
	res.Scanning = !s.mu.scanned
	s.mu.Unlock()
	return res, nil
}

// count enters how many snapshots there are. The catalogue is in the order of their barriers.
func count(list []index.Snapshot, res *api.VolumeStatus) {
	res.States = make(map[string]int64)
	for _, snap := range list {
		res.States[snap.State]++
		if snap.State == index.StateComplete {
			res.Newest = timestamppb.New(snap.Created)
		}
	}
	res.Pending = res.States[index.StatePending]
	res.Snapshots = res.Pending + res.States[index.StateComplete]
}

// sizes enters what takes the longer the more has changed and the more is stored.
func (s *service) sizes(ctx context.Context, res *api.VolumeStatus) error {
	packs, err := s.repo.Store().Packs(ctx)
	if err != nil {
		return statusOf(ctx, s.log, "listing the store", err)
	}
	for _, p := range packs {
		res.StoreBytes += p.Size
	}
	if s.live == nil {
		return nil
	}
	if res.DirtyBytes, err = dirtyBytes(ctx, s.live); err != nil {
		return statusOf(ctx, s.log, "listing what has changed", err)
	}
	return nil
}

// infoOf is a row of the catalogue as the API tells it.
func infoOf(s index.Snapshot) *api.SnapshotInfo {
	info := &api.SnapshotInfo{
		Id: s.ID, Name: s.Name, Kind: s.Kind, Parent: s.Parent, State: s.State, Created: timestamppb.New(s.Created),
		Pause: durationpb.New(time.Duration(s.PauseNS)), Seal: durationpb.New(time.Duration(s.SealNS)),
		Files: s.Files, Bytes: s.Bytes, DirtyBytes: s.DirtyBytes, StoredBytes: s.StoredBytes,
		ManifestSha256: s.ManifestSHA256, Error: s.Error, Hold: s.Hold, Tags: s.Tags,
	}
	if s.State == index.StateComplete {
		info.ChecksumSha256 = s.Root.String()
	}
	return info
}

// errNotMounted refuses what only a mounted volume can do.
func (s *service) errNotMounted(what string) error {
	backing := s.facts.Backing
	if backing == "" {
		backing = "BACKING"
	}
	return refuse(codes.FailedPrecondition, "the volume is not mounted, so "+what+": mount it first (graphvol mount "+backing+" MOUNT)")
}
