package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/agent/config"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// startEtcd is a real etcd of one member.
func startEtcd(t testing.TB) *Etcd {
	t.Helper()
	etcd, err := OpenEtcd("one", filepath.Join(t.TempDir(), "state"), config.Etcd{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := etcd.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := etcd.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return etcd
}

// simNode is a node with one volume in memory: counters, and a gate that all changes pass.
type simNode struct {
	api.UnimplementedNodeServer
	name  string
	terms Terms
	conn  *grpc.ClientConn

	gate     sync.RWMutex // changes share it; a hold has it alone
	counters [16]int
	closed   atomic.Int32 // gates; 0 or 1
	away     atomic.Bool  // for Drop and Inventory

	metadata atomic.Pointer[string] // nil: version 7

	// at is called before each step; its error is the step's.
	at atomic.Pointer[func(step api.PartRequest_Step) error]

	mu        sync.Mutex
	snapshots map[string]*simSnapshot
	signed    map[string][]byte // manifests by id
}

type simSnapshot struct {
	state    string
	hold     time.Duration
	counters [16]int
}

func newSimNode(t testing.TB, name string) *simNode {
	t.Helper()
	n := &simNode{name: name, snapshots: make(map[string]*simSnapshot), signed: make(map[string][]byte)}
	ln := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	api.RegisterNodeServer(srv, n)
	go srv.Serve(ln)
	conn, err := grpc.NewClient("passthrough:///"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	n.conn = conn
	t.Cleanup(func() { conn.Close(); srv.Stop() })
	return n
}

func (n *simNode) member() Member {
	return Member{Name: n.name, Address: n.name + ":1", Volumes: []string{"graph"}}
}

// set is a client's change; it returns when that is done.
func (n *simNode) set(counter, value int) {
	n.gate.RLock()
	defer n.gate.RUnlock()
	n.counters[counter] = value
}

func (n *simNode) Part(stream api.Node_PartServer) error {
	return ServePart(stream, &n.terms, func(id, _ string) Local { return &simLocal{simNode: n, id: id} })
}

func (n *simNode) Outcome(_ context.Context, req *api.OutcomeRequest) (*api.OutcomeResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &api.OutcomeResponse{Volumes: []*api.VolumePart{n.partLocked(req.GetVolumes()[0].GetSnapshot().GetId())}}, nil
}

func (n *simNode) SignOff(_ context.Context, req *api.SignOffRequest) (*api.SignOffResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.signed[req.GetId()] = req.GetManifest()
	return &api.SignOffResponse{}, nil
}

func (n *simNode) partLocked(id string) *api.VolumePart {
	s := n.snapshots[id]
	if s == nil {
		return &api.VolumePart{Volume: "graph", Error: "it was dropped"}
	}
	return &api.VolumePart{Volume: "graph", Snapshot: &api.SnapshotInfo{
		Id: id, State: s.state, Pause: durationpb.New(s.hold), ManifestSha256: fmt.Sprintf("%s-%s", n.name, id),
	}}
}

func (n *simNode) snapshot(id string) *simSnapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.snapshots[id]
}

// simLocal is its part in a snapshot.
type simLocal struct {
	*simNode
	id        string
	held      time.Time
	bound     *time.Timer
	open      sync.Once
	late      atomic.Bool
	committed bool
}

func (l *simLocal) step(s api.PartRequest_Step) error {
	if at := l.at.Load(); at != nil {
		return (*at)(s)
	}
	return nil
}

func (l *simLocal) Prepare(context.Context) (Prepared, error) {
	offset := time.Millisecond
	metadata := `{"version":"7"}`
	if m := l.metadata.Load(); m != nil {
		metadata = *m
	}
	return Prepared{Metadata: []byte(metadata), ClockOffset: &offset}, l.step(api.PartRequest_STEP_PREPARE)
}

func (l *simLocal) Ready(context.Context, time.Duration) error {
	return l.step(api.PartRequest_STEP_READY)
}

func (l *simLocal) Hold(_ context.Context, bound time.Duration) error {
	if err := l.step(api.PartRequest_STEP_HOLD); err != nil {
		return err
	}
	l.gate.Lock()
	l.closed.Add(1)
	l.held = time.Now()
	l.bound = time.AfterFunc(bound, func() { l.late.Store(true); l.release() })
	return nil
}

func (l *simLocal) release() {
	l.open.Do(func() { l.closed.Add(-1); l.gate.Unlock() })
}

func (l *simLocal) Cut(context.Context) ([]*api.VolumePart, error) {
	if err := l.step(api.PartRequest_STEP_CUT); err != nil {
		return nil, err
	}
	if l.late.Load() || !l.bound.Stop() {
		return nil, status.Error(codes.DeadlineExceeded, "too late")
	}
	s := &simSnapshot{state: "pending", counters: l.counters, hold: time.Since(l.held)}
	l.release()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshots[l.id] = s
	return []*api.VolumePart{l.partLocked(l.id)}, nil
}

func (l *simLocal) Check(context.Context) error { return l.step(api.PartRequest_STEP_CHECK) }

func (l *simLocal) Commit(context.Context) error {
	if err := l.step(api.PartRequest_STEP_COMMIT); err != nil {
		return err
	}
	l.committed = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshots[l.id].state = "complete" // it is stored at once, whoever is told
	return nil
}

func (l *simLocal) Wait(context.Context) ([]*api.VolumePart, error) {
	l.mu.Lock()
	part := l.partLocked(l.id)
	l.mu.Unlock()
	return []*api.VolumePart{part}, l.step(api.PartRequest_STEP_UNSPECIFIED)
}

func (l *simLocal) End() {
	if l.bound != nil {
		l.bound.Stop()
		l.release()
	}
	if !l.committed {
		l.mu.Lock()
		delete(l.snapshots, l.id)
		l.mu.Unlock()
	}
}

// simCluster is some nodes and a real etcd.
type simCluster struct {
	t       testing.TB
	etcd    *Etcd
	records *Records
	nodes   []*simNode
	set     Settings
}

func newSimCluster(t testing.TB, nodes int) *simCluster {
	t.Helper()
	c := &simCluster{t: t, etcd: startEtcd(t), set: Settings{Timeout: 20 * time.Second, Hold: 2 * time.Second}}
	c.records = NewRecords(c.etcd, "sim")
	for i := range nodes {
		c.nodes = append(c.nodes, newSimNode(t, fmt.Sprintf("n%02d", i)))
	}
	return c
}

func (c *simCluster) members(context.Context) ([]Member, error) {
	var all []Member
	for _, n := range c.nodes {
		all = append(all, n.member())
	}
	return all, nil
}

func (c *simCluster) dial(m Member) (api.NodeClient, error) {
	for _, n := range c.nodes {
		if n.name == m.Name {
			return api.NewNodeClient(n.conn), nil
		}
	}
	return nil, status.Error(codes.Unavailable, "no such node")
}

// simCoordinator is one node's coordinator, and its membership.
type simCoordinator struct {
	*Coordinator
	member *Membership
	led    chan struct{} // closed when it leads
	cancel context.CancelFunc
}

// coordinator starts a node that wants to coordinate.
func (c *simCluster) coordinator(name string) *simCoordinator {
	s := &simCoordinator{led: make(chan struct{})}
	s.Coordinator = NewCoordinator(CoordinatorConfig{
		Records: c.records, Members: c.members, Dial: c.dial, Settings: func() Settings { return c.set }, Log: quiet(),
	})
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.member = Join(c.etcd, "sim", Member{Name: name, Address: name}, func(lead context.Context, l Leadership) {
		lead, cancel := context.WithCancel(lead)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		go func() { // Lead has taken it when a snapshot may begin
			for !s.leads() {
				time.Sleep(time.Millisecond)
			}
			close(s.led)
		}()
		s.Lead(lead, l)
	}, quiet())
	c.t.Cleanup(s.close)
	return s
}

func (s *simCoordinator) leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.ctx != nil
}

func (s *simCoordinator) close() {
	s.cancel()
	s.member.Close()
}

func (s *simCoordinator) awaitLead(t testing.TB) {
	t.Helper()
	select {
	case <-s.led:
	case <-time.After(30 * time.Second):
		t.Fatal("it was not elected")
	}
}

// checkOpen fails the test if a gate stays closed.
func (c *simCluster) checkOpen() {
	c.t.Helper()
	eventually(c.t, "all gates are open", func() bool {
		for _, n := range c.nodes {
			if n.closed.Load() != 0 {
				return false
			}
		}
		return true
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it doesn't come true: %s", what)
		}
	}
}

// write has clients set counters of one node and then, to the same values, of another, until stop is called.
func (c *simCluster) write() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for k := range 16 {
		a, b := c.nodes[k%len(c.nodes)], c.nodes[(k+1)%len(c.nodes)]
		all.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				a.set(k, i)
				b.set(k, i)
				time.Sleep(50 * time.Microsecond) // leaves the processor to others
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// violations counts, in a snapshot, the clients whose second change is there without the first.
func (c *simCluster) violations(id string) (n int) {
	for k := range 16 {
		a, b := c.nodes[k%len(c.nodes)].snapshot(id), c.nodes[(k+1)%len(c.nodes)].snapshot(id)
		if b.counters[k] > a.counters[k] {
			n++
		}
	}
	return n
}

func (n *simNode) Drop(_ context.Context, req *api.DropRequest) (*api.DropResponse, error) {
	if n.away.Load() {
		return nil, status.Error(codes.Unavailable, "it is away")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.snapshots, req.GetVolumes()[0].GetSnapshot().GetId())
	delete(n.signed, req.GetId())
	return &api.DropResponse{}, nil
}

func (n *simNode) Inventory(_ context.Context, req *api.InventoryRequest) (*api.InventoryResponse, error) {
	if n.away.Load() {
		return nil, status.Error(codes.Unavailable, "it is away")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v := &api.VolumeInventory{Volume: "graph"}
	for id := range n.snapshots {
		v.Snapshots = append(v.Snapshots, n.partLocked(id).GetSnapshot())
	}
	for id, text := range n.signed {
		if !slices.Contains(req.GetKnown(), id) {
			v.Manifests = append(v.Manifests, text)
		}
	}
	return &api.InventoryResponse{Volumes: []*api.VolumeInventory{v}}, nil
}
