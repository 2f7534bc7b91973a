package node

import (
	"context"
	"fmt"
	"reflect"

	"graphvol/agent"
	"graphvol/agent/config"
	"graphvol/agent/graphmeta"
	"graphvol/agent/schedule"
)

// current is a configuration in force. It doesn't change.
type current struct {
	file     *config.File
	volumes  []*volume
	metadata graphmeta.Provider // nil: none
	central  config.Central     // of the configuration centre; revision 0: it is the node's own file
}

func newCurrent(file *config.File, central config.Central) (*current, error) {
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
func (n *Node) next(ctx context.Context, cfg config.Central) (*current, error) {
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
		return nil, fmt.Errorf("the volume %s is mounted at %s with other options, and they can't change while it is: unmount it (graphvol umount %s), and the agent mounts it with these", v.label, old.opts.Mount, old.opts.Mount)
	}
	return c, nil
}
