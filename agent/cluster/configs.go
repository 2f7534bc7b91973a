package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrChanged: somebody else has changed it meanwhile.
var ErrChanged = errors.New("somebody else has changed the configuration meanwhile: look at it again (graphvol cluster config get)")

// Config is a configuration in etcd, for one node or as the template of all.
type Config struct {
	Node     string // empty: of all that have none of their own
	Text     string // YAML
	Revision int64  // etcd's, of its last change; 0: there is none
}

// Applied is what a node says of the configuration that it runs.
type Applied struct {
	Node     string    `json:"node"`
	Revision int64     `json:"revision"`          // of what it runs; 0: its own file's
	Refused  int64     `json:"refused,omitempty"` // a newer one, which it refuses
	Error    string    `json:"error,omitempty"`   // why
	At       time.Time `json:"at"`
}

// Configs are the configurations of one cluster.
type Configs struct {
	etcd *Etcd
	keys keys
}

// NewConfigs gives the configurations of a cluster.
func NewConfigs(etcd *Etcd, cluster string) *Configs { return &Configs{etcd, newKeys(cluster)} }

func (k keys) configs() string              { return k.prefix + "config/" }
func (k keys) applied() string              { return k.prefix + "applied/" }
func (k keys) appliedBy(node string) string { return k.applied() + node }
func (k keys) configOf(node string) string {
	if node == "" {
		return k.configs() + "all"
	}
	return k.configs() + "nodes/" + node
}

// Get gives what is stored for a node, or for all.
func (c *Configs) Get(ctx context.Context, node string) (Config, error) {
	res, err := bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, c.keys.configOf(node))
	})
	if err != nil || len(res.Kvs) == 0 {
		return Config{Node: node}, err
	}
	return Config{node, string(res.Kvs[0].Value), res.Kvs[0].ModRevision}, nil
}

// Set stores a configuration, or removes it if the text is empty. was is the revision that is replaced; negative: whatever there is.
func (c *Configs) Set(ctx context.Context, cfg Config, was int64) (revision int64, err error) {
	key := c.keys.configOf(cfg.Node)
	op := clientv3.OpPut(key, cfg.Text)
	if cfg.Text == "" {
		op = clientv3.OpDelete(key)
	}
	var cond []clientv3.Cmp
	if was >= 0 {
		cond = append(cond, clientv3.Compare(clientv3.ModRevision(key), "=", was))
	}
	res, err := bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).If(cond...).Then(op).Commit()
	})
	if err != nil {
		return 0, err
	}
	if !res.Succeeded {
		return 0, ErrChanged
	}
	return res.Header.Revision, nil
}

// Effective gives what a node should run: its own, or else that of all; revision 0 if there is neither.
func (c *Configs) Effective(ctx context.Context, node string) (Config, error) {
	own, err := c.Get(ctx, node)
	if err != nil || own.Revision != 0 {
		return own, err
	}
	return c.Get(ctx, "")
}

// Watch calls fn with what a node should run, now and whenever a configuration has changed, until ctx ends.
func (c *Configs) Watch(ctx context.Context, node string, fn func(Config)) {
	watch(ctx, c.etcd, c.keys.configs(), func(ctx context.Context) error {
		cfg, err := c.Effective(ctx, node)
		if err == nil {
			fn(cfg)
		}
		return err
	})
}

// Report stores what a node says of its configuration.
func (c *Configs) Report(ctx context.Context, a Applied) error {
	value, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("the report of node %s: %w", a.Node, err)
	}
	_, err = bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.PutResponse, error) {
		return c.etcd.Put(ctx, c.keys.appliedBy(a.Node), string(value))
	})
	return err
}

// Reports gives what all nodes say.
func (c *Configs) Reports(ctx context.Context) ([]Applied, error) {
	return list[Applied](ctx, c.etcd, c.keys.applied())
}
