package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// leaseTTL is how long a silent node stays in the list, in seconds: S7's time-out.
const leaseTTL = 15

// Member is a node as it tells of itself.
type Member struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance"` // of its process: another one after a restart
	Address  string    `json:"address"`  // HOST:PORT of its Node service
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Volumes  []string  `json:"volumes"`
	Paths    []Paths   `json:"paths,omitempty"`
	Problem  string    `json:"problem,omitempty"`
	Paused   string    `json:"paused,omitempty"` // why it takes no snapshots
}

// Paths are where a volume is on its node.
type Paths struct {
	Volume  string `json:"volume"`
	Backing string `json:"backing"`
	Mount   string `json:"mount"`
}

// ErrNameTaken: another agent that is alive has this node's name.
var ErrNameTaken = errors.New("another agent has this node's name")

// Membership keeps a node in the list of those that are there, and takes part in the election of the coordinator.
type Membership struct {
	etcd *Etcd
	keys keys
	log  *slog.Logger
	lead func(context.Context, Leadership)
	ttl  int // of leases, in seconds

	cancel context.CancelFunc
	ended  chan struct{}

	mu struct {
		sync.Mutex
		self  Member
		told  []byte           // what the list has of self, as far as is known
		lease clientv3.LeaseID // of its entry in the list; 0: there is none
		err   error            // why it isn't in the list; nil: it is
	}
}

// Join begins to keep self in the list, until Close. lead is called whenever this node is the coordinator, with a context that ends with that; it returns then.
func Join(etcd *Etcd, cluster string, self Member, lead func(context.Context, Leadership), log *slog.Logger) *Membership {
	return joinFor(leaseTTL, etcd, cluster, self, lead, log)
}

func joinFor(ttl int, etcd *Etcd, cluster string, self Member, lead func(context.Context, Leadership), log *slog.Logger) *Membership {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Membership{etcd: etcd, keys: newKeys(cluster), log: log, lead: lead, ttl: ttl, cancel: cancel, ended: make(chan struct{})}
	m.mu.self, m.mu.err = self, ErrEtcd
	go m.run(ctx)
	return m
}

// Close takes the node out of the list.
func (m *Membership) Close() {
	m.cancel()
	<-m.ended
}

// Err tells why the node isn't in the list; nil: it is.
func (m *Membership) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.err
}

func (m *Membership) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.err = err
}

// run begins a session after the other, with pauses that grow while there is none.
func (m *Membership) run(ctx context.Context) {
	defer close(m.ended)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		m.set(err)
		m.log.Warn("this node isn't in the cluster", "err", err)
		if errors.Is(err, ErrRemoved) {
			return
		}
		if time.Since(began) > pause.MaxInterval {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// session is the node's membership as long as one lease lives.
func (m *Membership) session(ctx context.Context) error {
	if err := m.etcd.Wait(ctx); err != nil {
		return err
	}
	s, err := bounded(ctx, m.etcd, func(rctx context.Context) (*concurrency.Session, error) {
		lease, err := m.etcd.Grant(rctx, int64(m.ttl))
		if err != nil {
			return nil, err
		}
		return concurrency.NewSession(m.etcd.Client, concurrency.WithLease(lease.ID), concurrency.WithTTL(m.ttl), concurrency.WithContext(ctx))
	})
	if err != nil {
		return err
	}
	defer func() {
		m.mu.Lock()
		m.mu.lease = 0
		m.mu.Unlock()
		s.Orphan()
		m.revoke(context.Background(), s.Lease())
	}()
	if err := m.register(ctx, s); err != nil {
		return err
	}
	m.set(nil)
	sctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.Ctx(), cancel)
	defer stop()
	var watch sync.WaitGroup
	watch.Go(func() { m.watchSelf(sctx, cancel) })
	defer watch.Wait()
	defer cancel()
	if err := m.campaign(sctx, s); ctx.Err() != nil || sctx.Err() == nil {
		return err
	}
	return errors.New("the node's lease has ended")
}

// watchSelf calls gone when the node isn't in the list any more: an etcd whose leader was paused ends all leases when that comes back, and a lease's keeper learns it only when it renews it next.
func (m *Membership) watchSelf(ctx context.Context, gone func()) {
	for res := range m.etcd.Watch(ctx, m.keys.node(m.name())) {
		for _, ev := range res.Events {
			if ev.Type == clientv3.EventTypeDelete {
				gone()
				return
			}
		}
	}
}

// revoke ends a lease. If etcd can't be told, it ends by itself.
func (m *Membership) revoke(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := m.etcd.Revoke(ctx, lease); err != nil {
		m.log.Debug("the lease ends by itself", "err", err)
	}
}

// register writes the node into the list. The entry of an earlier process at the same address is replaced, and its lease ended: if it was the coordinator, nobody waits for that any more.
// The entry of another node has to end first.
func (m *Membership) register(ctx context.Context, s *concurrency.Session) (err error) {
	m.mu.Lock()
	self := m.mu.self
	m.mu.Unlock()
	key := m.keys.node(self.Name)
	value, err := json.Marshal(self)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			m.mu.Lock()
			m.mu.told, m.mu.lease = value, s.Lease() // not before: the entry may be another's
			m.mu.Unlock()
			m.log.Info("this node is in the cluster", "node", self.Name, "address", self.Address)
		}
	}()
	res, err := bounded(ctx, m.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return m.etcd.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(value), clientv3.WithLease(s.Lease()))).Else(clientv3.OpGet(key)).Commit()
	})
	if err != nil || res.Succeeded {
		return err
	}
	old := res.Responses[0].GetResponseRange().Kvs[0]
	var other Member
	if err := json.Unmarshal(old.Value, &other); err == nil && other.Address != self.Address {
		return fmt.Errorf("%w: %q is at %s; give this one another (node: name), or stop that one", ErrNameTaken, other.Name, other.Address)
	}
	res, err = bounded(ctx, m.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return m.etcd.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", old.ModRevision)).
			Then(clientv3.OpPut(key, string(value), clientv3.WithLease(s.Lease()))).Commit()
	})
	if err == nil && !res.Succeeded {
		err = fmt.Errorf("%w: another one has just come", ErrNameTaken)
	}
	if err == nil {
		m.revoke(ctx, clientv3.LeaseID(old.Lease))
	}
	return err
}

// SetVolumes says that the node has other volumes now.
func (m *Membership) SetVolumes(ctx context.Context, volumes []string, paths []Paths) {
	m.update(ctx, func(self *Member) { self.Volumes, self.Paths = volumes, paths })
}

// SetProblem says what is wrong on the node, if anything, and why it takes no snapshots, if it doesn't. It is called again and again: what the list has already isn't sent, and what etcd
// didn't take before is.
func (m *Membership) SetProblem(ctx context.Context, problem, paused string) {
	m.update(ctx, func(self *Member) { self.Problem, self.Paused = problem, paused })
}

func (m *Membership) update(ctx context.Context, change func(*Member)) {
	m.mu.Lock()
	change(&m.mu.self)
	self, lease := m.mu.self, m.mu.lease
	value, err := json.Marshal(self)
	known := lease == 0 || bytes.Equal(value, m.mu.told)
	m.mu.Unlock()
	if err == nil && !known {
		_, err = bounded(ctx, m.etcd, func(ctx context.Context) (*clientv3.PutResponse, error) {
			return m.etcd.Put(ctx, m.keys.node(self.Name), string(value), clientv3.WithLease(lease))
		})
		if err == nil {
			m.mu.Lock()
			m.mu.told = value
			m.mu.Unlock()
		}
	}
	if err != nil && ctx.Err() == nil {
		m.log.Warn("the cluster is told later how this node fares", "err", err)
	}
}

// name is the node's.
func (m *Membership) name() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.self.Name
}

// Members lists the nodes that are there, by name.
func (m *Membership) Members(ctx context.Context) ([]Member, error) {
	return list[Member](ctx, m.etcd, m.keys.nodes())
}
