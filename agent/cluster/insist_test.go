package cluster

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"graphvol/agent/api"
)

// lossyKV is an etcd that is away while down, whose answers to writes are lost, or that elects its leader for one request.
type lossyKV struct {
	clientv3.KV
	down, deaf, elects atomic.Bool
}

func (kv *lossyKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if kv.down.Load() {
		return nil, context.DeadlineExceeded
	}
	if kv.elects.Swap(false) {
		return nil, rpctypes.ErrGRPCLeaderChanged
	}
	return kv.KV.Get(ctx, key, opts...)
}

func (kv *lossyKV) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{kv.KV.Txn(ctx), kv} }

type lossyTxn struct {
	clientv3.Txn
	kv *lossyKV
}

func (t *lossyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *lossyTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }

func (t *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	res, err := t.Txn.Commit()
	if t.kv.deaf.Swap(false) {
		return nil, context.DeadlineExceeded
	}
	return res, err
}

// A coordinator that loses its way to etcd for less than its lease ends what it has begun when etcd is back, as nobody else does.
func TestRecordIsEndedWhenEtcdIsBack(t *testing.T) {
	c := newSimCluster(t, 3)
	kv := &lossyKV{KV: c.etcd.KV}
	c.etcd.KV = kv
	co := c.coordinator("a")
	co.awaitLead(t)
	failAt(c.nodes[1], api.PartRequest_STEP_HOLD, func() error {
		kv.down.Store(true)
		return status.Error(codes.Internal, "the network is gone")
	})
	if _, err := co.Snapshot(t.Context(), Request{Name: "failed"}, nil); err == nil {
		t.Fatal("it was taken")
	}
	kv.down.Store(false)
	eventually(t, "its record is final", func() bool {
		all, err := c.records.List(t.Context())
		return err == nil && all[0].State == StateFailed
	})
	failAt(c.nodes[1], api.PartRequest_STEP_UNSPECIFIED, func() error { kv.down.Store(true); kv.deaf.Store(true); return nil })
	done := make(chan error, 1)
	go func() {
		_, err := co.Snapshot(t.Context(), Request{Name: "complete"}, nil)
		done <- err
	}()
	eventually(t, "etcd is away", kv.down.Load)
	kv.down.Store(false)
	if err := <-done; err != nil {
		t.Errorf("a snapshot whose last record's answer was lost: %v", err)
	}
	if all, err := c.records.List(t.Context()); err != nil || all[1].State != StateComplete || kv.deaf.Load() {
		t.Errorf("%+v, %v", all[1], err)
	}
}

func TestElectionOfEtcdIsWaitedFor(t *testing.T) {
	c := newSimCluster(t, 1)
	kv := &lossyKV{KV: c.etcd.KV}
	c.etcd.KV = kv
	kv.elects.Store(true)
	if _, err := c.records.List(t.Context()); err != nil || kv.elects.Load() {
		t.Errorf("%v", err)
	}
}
