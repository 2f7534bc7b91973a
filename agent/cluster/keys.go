package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"graphvol/agent/config"
)

const (
	root = "/graphvol/"
	// requestTimeout bounds one request to etcd.
	requestTimeout = 5 * time.Second
)

// ErrEtcd: etcd doesn't answer, or has lost its majority.
var ErrEtcd = errors.New("etcd doesn't answer: more than half of its members must be up and reach each other")

// keys are those of one cluster.
type keys struct{ prefix string }

func newKeys(cluster string) keys {
	if cluster == "" {
		cluster = config.DefaultCluster
	}
	return keys{root + cluster + "/"}
}

func (k keys) nodes() string             { return k.prefix + "nodes/" }
func (k keys) node(name string) string   { return k.nodes() + name }
func (k keys) election() string          { return k.prefix + "coordinator" }
func (k keys) snapshots() string         { return k.prefix + "snapshots/" }
func (k keys) snapshot(id string) string { return k.snapshots() + id }

// electionPause is between two tries of a request that etcd has refused because its own leader has changed.
const electionPause = 50 * time.Millisecond

// bounded runs one request to etcd with its time-out, and says what it means if that passes. What etcd refuses while it elects its own leader is asked again: it has had no effect.
func bounded[T any](ctx context.Context, etcd *Etcd, fn func(context.Context) (T, error)) (T, error) {
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for {
		v, err := fn(rctx)
		if e := rpctypes.Error(err); e == rpctypes.ErrLeaderChanged || e == rpctypes.ErrNoLeader {
			select {
			case <-time.After(electionPause):
				continue
			case <-rctx.Done():
			}
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case etcd.Removed() != nil:
			err = etcd.Removed()
		case errors.Is(err, context.DeadlineExceeded): // which says nothing more
			err = ErrEtcd
		default:
			err = fmt.Errorf("%w (%w)", ErrEtcd, err)
		}
		return v, err
	}
}

// list reads all values below a prefix, in the order of their keys.
func list[T any](ctx context.Context, etcd *Etcd, prefix string, opts ...clientv3.OpOption) ([]T, error) {
	res, err := bounded(ctx, etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return etcd.Get(ctx, prefix, append(opts, clientv3.WithPrefix())...)
	})
	if err != nil {
		return nil, err
	}
	all := make([]T, len(res.Kvs))
	for i, kv := range res.Kvs {
		if err := json.Unmarshal(kv.Value, &all[i]); err != nil {
			return nil, fmt.Errorf("%s in etcd: %w", path.Clean(string(kv.Key)), err)
		}
	}
	return all, nil
}
