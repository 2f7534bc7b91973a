package agent

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/cow"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

// emptySource is an ended epoch of an empty directory.
type emptySource struct {
	fakeEnded
	epoch uint64
	hold  chan struct{} // its inode is known when this is closed; nil: at once
}

func (s *emptySource) Epoch() uint64                                       { return s.epoch }
func (s *emptySource) Root() uint64                                        { return 1 }
func (s *emptySource) Full() bool                                          { return true }
func (s *emptySource) Dirty(func(snapshot.DirtyInode) bool)                {}
func (s *emptySource) Done(uint64)                                         {}
func (s *emptySource) ReadAt(context.Context, uint64, []byte, int64) error { return nil }

func (s *emptySource) Inode(ctx context.Context, ino uint64) (tree.Inode, error) {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return tree.Inode{}, ctx.Err()
		}
	}
	if ino != 1 {
		return tree.Inode{}, iofs.ErrNotExist
	}
	return tree.Inode{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2}, nil
}

func (s *emptySource) Entry(context.Context, uint64, string) (tree.Dirent, bool, error) {
	return tree.Dirent{}, false, nil
}
func (s *emptySource) Entries(context.Context, uint64) ([]tree.Dirent, error) { return nil, nil }
func (s *emptySource) NextData(context.Context, uint64, int64) (int64, int64, error) {
	return 0, 0, io.EOF
}

// fakeLive is a mounted volume that holds nothing.
type fakeLive struct {
	epoch    atomic.Uint64
	held     atomic.Int64 // gates that are closed
	flush    error
	barrier  error
	hold     chan struct{}
	slowScan bool
	source   func(epoch uint64) ended // what a barrier ends; nil: an emptySource
}

var _ live = (*fakeLive)(nil)

func (l *fakeLive) Flush(context.Context) error { return l.flush }
func (l *fakeLive) Barrier(context.Context) (ended, time.Duration, error) {
	if l.barrier != nil {
		return nil, 0, l.barrier
	}
	epoch := l.epoch.Add(1)
	if l.source != nil {
		return l.source(epoch), 3 * time.Millisecond, nil
	}
	return &emptySource{epoch: epoch, hold: l.hold}, 3 * time.Millisecond, nil
}

func (l *fakeLive) Ready(context.Context) error { return nil }

func (l *fakeLive) Hold(_ context.Context, bound time.Duration) (held, error) {
	if l.barrier != nil {
		return nil, l.barrier
	}
	l.held.Add(1)
	return &fakeHeld{live: l, until: time.Now().Add(bound)}, nil
}

// fakeHeld is a fakeLive whose gate is closed.
type fakeHeld struct {
	live  *fakeLive
	until time.Time
	over  atomic.Bool
}

func (h *fakeHeld) Cut() (ended, time.Duration, error) {
	if time.Now().After(h.until) {
		return nil, 0, cow.ErrHoldOver
	}
	h.Release()
	return h.live.Barrier(context.Background())
}

func (h *fakeHeld) Release() {
	if h.over.CompareAndSwap(false, true) {
		h.live.held.Add(-1)
	}
}

func (l *fakeLive) WaitScan(ctx context.Context) error {
	if l.slowScan {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}
func (l *fakeLive) Dirty(_ context.Context, yield func(cow.DirtyFile) bool) error {
	yield(cow.DirtyFile{Path: "a\xff", Bytes: 4096, Ranges: []cow.DirtyRange{{Off: 0, Len: 4096}}})
	return nil
}
func (l *fakeLive) Where(uint64) (uint64, string, bool) { return 0, "", false }
func (l *fakeLive) Epoch() uint64                       { return l.epoch.Load() + 1 }
func (l *fakeLive) CountAsChanged()                     {}

// serveFake gives a client of a service over a new repository and a fake volume; nil: not mounted.
func serveFake(t testing.TB, l *fakeLive, change func(*serviceConfig)) *Client {
	t.Helper()
	state := t.TempDir()
	repo, err := snapshot.Open(t.Context(), snapshot.Config{State: state, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := serviceConfig{state: state, facts: Facts{Backing: "/srv/graph", Mount: "/mnt/graph"}, repo: repo, log: quiet(), timeout: time.Minute, stall: time.Minute, maxPending: 2}
	if l != nil {
		cfg.live, cfg.holder = l, &fakeHolder{}
	}
	if change != nil {
		change(&cfg)
	}
	svc := newService(cfg)
	c := &Client{}
	if err := c.serveHere(svc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		svc.finish(ctx)
		if err := errors.Join(c.Close(), repo.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// take takes a snapshot and tells the stages it went through.
func take(t testing.TB, c *Client, req *api.SnapshotRequest) (stages []string, last *api.SnapshotInfo, err error) {
	t.Helper()
	stream, err := c.Snapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stages, last, nil
		}
		if err != nil {
			return stages, last, err
		}
		if n := len(stages); n == 0 || stages[n-1] != ev.GetStage().String() {
			stages = append(stages, ev.GetStage().String())
		}
		last = ev.GetSnapshot()
	}
}

func TestSnapshotGoesThroughItsStages(t *testing.T) {
	c := serveFake(t, &fakeLive{}, nil)
	stages, snap, err := take(t, c, &api.SnapshotRequest{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(stages, " ")
	if !strings.HasPrefix(got, "STAGE_FLUSHING STAGE_TAKEN") || !strings.HasSuffix(got, "STAGE_COMPLETE") {
		t.Errorf("stages %s", got)
	}
	if snap.GetName() != "one" || snap.GetState() != "complete" || snap.GetPause().AsDuration() != 3*time.Millisecond || len(snap.GetChecksumSha256()) != 64 {
		t.Errorf("%v", snap)
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "one"}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same name again: %v", err)
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "a/b"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a name with a slash: %v", err)
	}
	list, err := c.ListSnapshots(t.Context(), &api.ListSnapshotsRequest{})
	if err != nil || len(list.GetSnapshots()) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
}

func TestPendingSnapshotsAreBounded(t *testing.T) {
	l := &fakeLive{hold: make(chan struct{})}
	c := serveFake(t, l, func(cfg *serviceConfig) { cfg.timeout = 200 * time.Millisecond })
	for _, name := range []string{"a", "b"} {
		stages, snap, err := take(t, c, &api.SnapshotRequest{Name: name, NoWait: true})
		if err != nil || len(stages) != 2 || snap.GetState() != "pending" {
			t.Fatalf("%s: %v, %v, %v", name, stages, snap, err)
		}
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "c", NoWait: true}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a third one: %v", err)
	}
	if st, err := c.Status(t.Context(), &api.StatusRequest{}); err != nil || st.GetPending()+st.GetSnapshots() == 0 || st.GetDirtyBytes() != 4096 {
		t.Errorf("status: %v, %v", st, err)
	}
}

func TestSnapshotsThatFailBeforeTheBarrier(t *testing.T) {
	for _, tc := range []struct {
		live *fakeLive
		code codes.Code
		want string
	}{
		{&fakeLive{barrier: cow.ErrBarrierTimeout}, codes.DeadlineExceeded, "the volume works on"},
		{&fakeLive{flush: unix.EIO}, codes.DataLoss, "input/output error"},
		{&fakeLive{slowScan: true}, codes.DeadlineExceeded, "looking for changes"},
	} {
		c := serveFake(t, tc.live, func(cfg *serviceConfig) { cfg.timeout = 100 * time.Millisecond })
		_, _, err := take(t, c, &api.SnapshotRequest{})
		if status.Code(err) != tc.code || !strings.Contains(Message(err), tc.want) {
			t.Errorf("got %v, want %v, %q", err, tc.code, tc.want)
		}
		if list, err := c.ListSnapshots(t.Context(), &api.ListSnapshotsRequest{}); err != nil || len(list.GetSnapshots()) != 0 {
			t.Errorf("listed %v, %v", list, err)
		}
	}
}

func TestUnmountWaitsOrDrops(t *testing.T) {
	l := &fakeLive{hold: make(chan struct{})}
	c := serveFake(t, l, nil)
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "a", NoWait: true}); err != nil {
		t.Fatal(err)
	}
	unmount := func(bound time.Duration) *api.UnmountEvent {
		t.Helper()
		stream, err := c.Unmount(t.Context(), &api.UnmountRequest{Timeout: durationpb.New(bound)})
		if err != nil {
			t.Fatal(err)
		}
		var last *api.UnmountEvent
		for {
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return last
			}
			if err != nil {
				t.Fatal(err)
			}
			last = ev
		}
	}
	if ev := unmount(time.Millisecond); !ev.GetReady() || len(ev.GetDropped()) != 1 || ev.GetDropped()[0] != "a" {
		t.Errorf("dropped: %v", ev)
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "b"}); status.Code(err) != codes.Aborted {
		t.Errorf("while unmounting: %v", err)
	}
	if _, err := c.Resume(t.Context(), &api.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
	close(l.hold)
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "b"}); err != nil {
		t.Errorf("after the unmount failed: %v", err)
	}
	if ev := unmount(time.Minute); !ev.GetReady() || len(ev.GetDropped()) != 0 {
		t.Errorf("nothing pending: %v", ev)
	}
}

func TestOfflineRefusesWhatNeedsAMount(t *testing.T) {
	c := serveFake(t, nil, nil)
	if _, _, err := take(t, c, &api.SnapshotRequest{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(Message(err), "graphvol mount /srv/graph MOUNT") {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := c.Delete(t.Context(), &api.DeleteRequest{Snapshots: []string{"x"}}); status.Code(err) != codes.NotFound {
		t.Errorf("delete: %v", err)
	}
	if st, err := c.Status(t.Context(), &api.StatusRequest{}); err != nil || st.GetMount() != "" || st.GetServerPid() != 0 {
		t.Errorf("status: %v, %v", st, err)
	}
}

func TestNamesNeedNotBeUTF8(t *testing.T) {
	c := serveFake(t, &fakeLive{}, nil)
	stream, err := c.Dirty(t.Context(), &api.DirtyRequest{Ranges: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := stream.Recv()
	if err != nil || string(f.GetPath()) != "a\xff" || len(f.GetRanges()) != 1 {
		t.Errorf("%v, %v", f, err)
	}
}

func TestRestoreDestinations(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	over := &service{serviceConfig: serviceConfig{state: state, live: &fakeLive{}, facts: Facts{Backing: dir, Mount: dir, SnapDir: ".snapshots"}}}
	beside := &service{serviceConfig: serviceConfig{state: state, live: &fakeLive{}, facts: Facts{Backing: dir, Mount: t.TempDir(), SnapDir: ".snapshots"}}}
	offline := &service{serviceConfig: serviceConfig{state: state, facts: Facts{Backing: dir, Mount: dir, SnapDir: ".snapshots"}}}
	for _, c := range []struct {
		svc  *service
		dest string
		want string // in the error; empty: none
	}{
		{beside, dir, "restore to the mount"},
		{beside, dir + "/sub", "restore to the mount"},
		{beside, beside.facts.Mount, "own mount"},
		{beside, beside.facts.Mount + "/.snapshots/x", "own mount"},
		{over, dir, "own mount"},
		{beside, beside.facts.Mount + "x/y/z", ""},
		{offline, dir, ""},
		{offline, "relative", "absolute"},
		{over, state + "/x", "state directory"},
	} {
		_, err := c.svc.destination(c.dest)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.dest, err, c.want)
		}
	}
}

func TestRestorePaths(t *testing.T) {
	got, err := cleanPaths([][]byte{[]byte("/a/b/"), []byte("./c\xff")})
	if err != nil || strings.Join(got, "|") != "a/b|c\xff" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := cleanPaths([][]byte{[]byte("a"), []byte("/")}); err != nil || got != nil {
		t.Errorf("the root is all: %q, %v", got, err)
	}
	if _, err := cleanPaths([][]byte{[]byte("a/../../b")}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("upwards: %v", err)
	}
}
