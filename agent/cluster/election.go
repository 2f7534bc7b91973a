package cluster

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// ErrNotCoordinator: this node isn't the coordinator any more, and whatever it was about to write is not written.
var ErrNotCoordinator = errors.New("another node has become the coordinator meanwhile")

// ErrNoCoordinator: none is elected at the moment.
var ErrNoCoordinator = errors.New("no coordinator is elected at the moment: try again in some seconds")

// Leadership is the proof that this node is the coordinator.
type Leadership struct {
	Term int64 // grows with each election
	key  string
}

// holds is the condition of every write of a coordinator.
func (l Leadership) holds() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(l.key), "=", l.Term)
}

// campaign waits to be elected, and leads as long as the session lives.
func (m *Membership) campaign(ctx context.Context, s *concurrency.Session) error {
	e := concurrency.NewElection(s, m.keys.election())
	if err := e.Campaign(ctx, m.name()); err != nil {
		return fmt.Errorf("the election of the coordinator: %w", err)
	}
	m.log.Info("this node is the coordinator", "term", e.Rev())
	m.lead(ctx, Leadership{Term: e.Rev(), key: e.Key()})
	<-ctx.Done()
	m.log.Info("this node isn't the coordinator any more", "term", e.Rev())
	return ctx.Err()
}

// Coordinator tells the name of the coordinator. ErrNoCoordinator if there is none.
func (m *Membership) Coordinator(ctx context.Context) (string, error) {
	res, err := bounded(ctx, m.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return m.etcd.Get(ctx, m.keys.election()+"/", clientv3.WithFirstCreate()...)
	})
	if err != nil {
		return "", err
	}
	if len(res.Kvs) == 0 {
		return "", ErrNoCoordinator
	}
	return string(res.Kvs[0].Value), nil
}
