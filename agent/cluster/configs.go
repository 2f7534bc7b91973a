package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"graphvol/agent/config"
)

// ErrChanged: somebody else has changed it meanwhile.
var ErrChanged = errors.New("somebody else has changed the configuration meanwhile: look at it again (graphvol cluster config get)")

// Centre is what the configuration centre has for one node.
type Centre struct {
	Own config.Central // for that node alone
	All config.Central // of all that have none of their own
}

// Effective is what the node should run: its own, or else that of all; revision 0 if there is neither.
func (c Centre) Effective() config.Central {
	switch {
	case c.Own.Text != "":
		return c.Own
	case c.All.Text != "":
		return c.All
	}
	return config.Central{}
}

// Lost tells whether the centre knows nothing any more of what the node has from it: neither that nor another in its place, nor that it was removed. Then etcd has lost its data.
func (c Centre) Lost(kept config.Central) bool {
	switch {
	case kept.Text == "":
		return false
	case kept.Node != "":
		return c.Own.Revision == 0
	}
	return c.Own.Text == "" && c.All.Revision == 0
}

// Applied is what a node says of the configuration that it runs.
type Applied struct {
	Node     string          `json:"node"`
	Revision int64           `json:"revision"`          // of what it runs; 0: its own file's
	Refused  int64           `json:"refused,omitempty"` // a newer one, which it refuses
	Error    string          `json:"error,omitempty"`   // why
	Kept     *config.Central `json:"kept,omitempty"`    // what it runs, if the centre has lost that
	At       time.Time       `json:"at"`
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
func (c *Configs) Get(ctx context.Context, node string) (config.Central, error) {
	res, err := bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(ctx, c.keys.configOf(node))
	})
	if err != nil {
		return config.Central{Node: node}, err
	}
	return configIn(node, res.Kvs), nil
}

func configIn(node string, kvs []*mvccpb.KeyValue) config.Central {
	if len(kvs) == 0 {
		return config.Central{Node: node}
	}
	return config.Central{Node: node, Text: string(kvs[0].Value), Revision: kvs[0].ModRevision}
}

// Set stores a configuration. An empty text removes it; what remains is that it was removed, which is something else than that it was lost. was is the revision that is replaced, 0 if there never was
// one; negative: whatever there is.
func (c *Configs) Set(ctx context.Context, cfg config.Central, was int64) (revision int64, err error) {
	key := c.keys.configOf(cfg.Node)
	var cond []clientv3.Cmp
	if was >= 0 {
		cond = append(cond, clientv3.Compare(clientv3.ModRevision(key), "=", was))
	}
	res, err := bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).If(cond...).Then(clientv3.OpPut(key, cfg.Text)).Commit()
	})
	if err != nil {
		return 0, err
	}
	if !res.Succeeded {
		return 0, ErrChanged
	}
	return res.Header.Revision, nil
}

// For gives what the centre has for a node.
func (c *Configs) For(ctx context.Context, node string) (Centre, error) {
	res, err := bounded(ctx, c.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.etcd.Txn(ctx).Then(clientv3.OpGet(c.keys.configOf(node)), clientv3.OpGet(c.keys.configOf(""))).Commit()
	})
	if err != nil {
		return Centre{}, err
	}
	return Centre{
		Own: configIn(node, res.Responses[0].GetResponseRange().Kvs),
		All: configIn("", res.Responses[1].GetResponseRange().Kvs),
	}, nil
}

// Watch calls fn with what the centre has for a node, now and whenever a configuration has changed, until ctx ends.
func (c *Configs) Watch(ctx context.Context, node string, fn func(Centre)) {
	watch(ctx, c.etcd, c.keys.configs(), func(ctx context.Context) error {
		centre, err := c.For(ctx, node)
		if err == nil {
			fn(centre)
		}
		return err
	})
}

// Restored is a configuration that was put back, or would be.
type Restored struct {
	config.Central          // as it was kept
	Now            int64    // its revision now; 0: nothing was done
	From           []string // nodes that have kept it
	Older          []string // nodes that have kept an older one
}

// Restore puts back what the centre has lost, from what nodes report that they have kept: of each configuration the newest. What the centre has stays as it is.
func (c *Configs) Restore(ctx context.Context, dryRun bool) (all []Restored, err error) {
	reports, err := c.Reports(ctx)
	if err != nil {
		return nil, err
	}
	for _, kept := range newestKept(reports) {
		there, err := c.Get(ctx, kept.Node)
		if err == nil && there.Revision == 0 && !dryRun {
			kept.Now, err = c.Set(ctx, kept.Central, 0)
		}
		if err != nil && !errors.Is(err, ErrChanged) {
			return all, err
		}
		if err == nil && there.Revision == 0 { // else somebody has set or removed it meanwhile
			all = append(all, kept)
		}
	}
	return all, nil
}

// newestKept gives the newest of each configuration that nodes have kept.
func newestKept(reports []Applied) (all []Restored) {
	slices.SortStableFunc(reports, func(a, b Applied) int {
		return cmp.Compare(revisionOf(b.Kept), revisionOf(a.Kept))
	})
	for _, r := range reports {
		if r.Kept == nil {
			continue
		}
		i := slices.IndexFunc(all, func(x Restored) bool { return x.Node == r.Kept.Node })
		switch {
		case i < 0:
			all = append(all, Restored{Central: *r.Kept, From: []string{r.Node}})
		case *r.Kept == all[i].Central:
			all[i].From = append(all[i].From, r.Node)
		default:
			all[i].Older = append(all[i].Older, r.Node)
		}
	}
	slices.SortFunc(all, func(a, b Restored) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func revisionOf(c *config.Central) int64 {
	if c == nil {
		return 0
	}
	return c.Revision
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
