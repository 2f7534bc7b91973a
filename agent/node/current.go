package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"graphvol/agent"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
	"graphvol/agent/graphmeta"
	"graphvol/agent/schedule"
)

// errCentreLost: the centre has lost what is in force here. Nobody has said that it shouldn't be any more.
var errCentreLost = errors.New("etcd has lost it, and what was in force stays so: graphvol cluster config restore puts it back, graphvol cluster config set puts another in its place")

// current is a configuration in force. It doesn't change.
type current struct {
	file     *config.File
	volumes  []*volume
	metadata graphmeta.Provider // nil: none
	central  cluster.Config     // of the configuration centre; revision 0: it is the node's own file
}

func newCurrent(file *config.File, central cluster.Config) (*current, error) {
	c := &current{file: file, central: central}
	if file.Metadata.Set() {
		var err error
		if c.metadata, err = graphmeta.Open(file.Metadata); err != nil {
			return nil, err
		}
	}
	if err := checkKeep("cluster", file.Cluster.Keep); err != nil {
		return nil, err
	}
	for i := range file.Volumes {
		v := &file.Volumes[i]
		if err := checkKeep("volume "+v.Label(), v.Keep); err != nil {
			return nil, err
		}
		o, err := agent.Configured(v)
		if err != nil {
			return nil, err
		}
		if o.State == "" {
			o.State = agent.DefaultState(o.Backing)
		}
		c.volumes = append(c.volumes, &volume{label: v.Label(), cfg: v, opts: o})
	}
	return c, c.checkTimes()
}

// checkTimes refuses schedules that can't be right.
func (c *current) checkTimes() error {
	for j, text := range c.jobs() {
		if text == "" {
			continue
		}
		if err := schedule.Check(text); err != nil {
			return fmt.Errorf("schedule of %s: %w", j, err)
		}
	}
	return nil
}

// find gives a volume by its label; nil: there is none.
func (c *current) find(label string) *volume {
	for _, v := range c.volumes {
		if v.label == label {
			return v
		}
	}
	return nil
}

func (c *current) labels() (all []string) {
	for _, v := range c.volumes {
		all = append(all, v.label)
	}
	return all
}

// next makes what comes after now, and refuses what a mounted volume can't become.
func (n *Node) next(ctx context.Context, cfg cluster.Config) (*current, error) {
	file := n.boot
	if cfg.Revision != 0 {
		var err error
		if file, err = n.boot.WithCentre(cfg.Text); err != nil {
			return nil, err
		}
	}
	c, err := newCurrent(file, cfg)
	if err != nil {
		return nil, err
	}
	now := n.now.Load()
	for _, v := range c.volumes {
		old := now.find(v.label)
		if old == nil || reflect.DeepEqual(old.opts, v.opts) || !agent.IsMounted(ctx, old.opts) {
			continue
		}
		return nil, fmt.Errorf("the volume %s is mounted at %s with other options, and they can't change while it is: unmount it (graphvol umount %s), then set the configuration again", v.label, old.opts.Mount, old.opts.Mount)
	}
	return c, nil
}

// apply puts what the centre has for this node into force, or leaves everything as it is and says why.
func (n *Node) apply(ctx context.Context, centre cluster.Centre) {
	now := n.now.Load()
	if centre.Lost(now.central) {
		n.problem("configuration", errCentreLost)
		n.report(ctx, cluster.Applied{Revision: now.central.Revision, Kept: &now.central})
		return
	}
	cfg := centre.Effective()
	if cfg == now.central {
		n.problem("configuration", nil) // one that was refused is taken back
		n.report(ctx, cluster.Applied{Revision: cfg.Revision})
		return
	}
	c, err := n.next(ctx, cfg)
	if err == nil {
		err = config.Kept(cfg).Keep(n.state)
	}
	n.problem("configuration", err)
	if err != nil {
		n.log.Error("the configuration of the centre is refused, and the one before stays in force", "revision", cfg.Revision, "err", err)
		n.report(ctx, cluster.Applied{Revision: now.central.Revision, Refused: cfg.Revision, Error: err.Error()})
		return
	}
	n.now.Store(c)
	n.measured(c)
	n.schedules.set(c)
	n.log.Info("another configuration is in force", "revision", cfg.Revision, "before", now.central.Revision)
	for _, v := range now.volumes {
		if c.find(v.label) == nil {
			n.problem("volume "+v.label, nil)
			n.log.Warn("the volume isn't configured any more: it stays mounted, and is no part of snapshots of the cluster", "volume", v.label, "mount", v.opts.Mount)
		}
	}
	for _, v := range c.volumes { // also what hasn't changed: if it isn't mounted yet, who tries to gives up now
		n.beside(func(ctx context.Context) { n.mountUntil(ctx, v, func() {}) })
	}
	n.member.SetVolumes(ctx, c.labels(), c.paths())
	n.report(ctx, cluster.Applied{Revision: cfg.Revision})
}

func (n *Node) report(ctx context.Context, a cluster.Applied) {
	a.Node, a.At = n.name, time.Now().UTC()
	if err := n.configs.Report(ctx, a); err != nil && ctx.Err() == nil {
		n.log.Warn("the cluster isn't told which configuration runs here", "err", err)
	}
}

// followConfig applies what the centre has, until ctx ends.
func (n *Node) followConfig(ctx context.Context) {
	n.configs.Watch(ctx, n.name, func(centre cluster.Centre) { n.apply(ctx, centre) })
}
