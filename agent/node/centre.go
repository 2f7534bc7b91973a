package node

import (
	"context"
	"errors"
	"time"

	"graphvol/agent/cluster"
	"graphvol/agent/config"
)

// tryRefused is how often it is tried again to put a configuration into force that was refused: a volume was unmounted meanwhile, say.
const tryRefused = 2 * time.Second

// errCentreLost: the centre has lost what is in force here. Nobody has said that it shouldn't be any more.
var errCentreLost = errors.New("etcd has lost it, and what was in force stays so: graphvol cluster config restore puts it back, graphvol cluster config set puts another in its place")

// followConfig applies what the centre has, until ctx ends.
func (n *Node) followConfig(ctx context.Context) {
	news := make(chan cluster.Centre)
	n.beside(func(ctx context.Context) {
		n.configs.Watch(ctx, n.name, func(c cluster.Centre) {
			select {
			case news <- c:
			case <-ctx.Done():
			}
		})
	})
	var newest cluster.Centre
	var again <-chan time.Time
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case newest = <-news:
			told = ""
		case <-again:
		}
		again = nil
		err := n.apply(ctx, newest)
		if err == nil {
			continue
		}
		again = time.After(tryRefused)
		if err.Error() != told {
			n.refuse(ctx, newest.Effective(), err)
			told = err.Error()
		}
	}
}

// apply puts what the centre has for this node into force, or leaves everything as it is and says why.
func (n *Node) apply(ctx context.Context, centre cluster.Centre) error {
	now := n.now.Load()
	if centre.Lost(now.central) {
		n.problem("configuration", errCentreLost)
		n.report(ctx, cluster.Applied{Revision: now.central.Revision, Kept: &now.central})
		return nil
	}
	cfg := centre.Effective()
	if cfg == now.central {
		n.problem("configuration", nil) // one that was refused is taken back
		n.report(ctx, cluster.Applied{Revision: cfg.Revision})
		return nil
	}
	c, err := n.next(ctx, cfg)
	if err == nil {
		err = cfg.Keep(n.state)
	}
	n.problem("configuration", err)
	if err != nil {
		return err
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
	return nil
}

// refuse tells that a configuration can't be put into force.
func (n *Node) refuse(ctx context.Context, cfg config.Central, err error) {
	n.log.Error("the configuration of the centre is refused, and the one before stays in force", "revision", cfg.Revision, "err", err)
	n.report(ctx, cluster.Applied{Revision: n.now.Load().central.Revision, Refused: cfg.Revision, Error: err.Error()})
}

func (n *Node) report(ctx context.Context, a cluster.Applied) {
	a.Node, a.At = n.name, time.Now().UTC()
	if err := n.configs.Report(ctx, a); err != nil && ctx.Err() == nil {
		n.log.Warn("the cluster isn't told which configuration runs here", "err", err)
	}
}
