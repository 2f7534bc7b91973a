package node

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
	"graphvol/snapshot/retain"
)

// keepVolume deletes the volume's own snapshots that its policy doesn't keep.
func keepVolume(ctx context.Context, v *volume, c *agent.Client) error {
	policy, some, err := policyOf(v.cfg.Keep)
	if err != nil || !some {
		return err
	}
	list, err := c.ListSnapshots(ctx, &api.ListSnapshotsRequest{})
	if err != nil {
		return v.said(err)
	}
	// Those of the cluster have a policy of their own, and would keep one of the volume's from counting.
	own := slices.DeleteFunc(list.GetSnapshots(), func(s *api.SnapshotInfo) bool { return slices.Contains(s.GetTags(), clusterTag) })
	if gone := forgotten(policy, agent.RetainItems(own)); len(gone) > 0 {
		_, err = c.Delete(ctx, &api.DeleteRequest{Snapshots: gone})
	}
	return v.said(err)
}

// keepCluster deletes the snapshots of the cluster that its policy doesn't keep.
func (s *schedules) keepCluster(ctx context.Context) error {
	policy, some, err := policyOf(s.now.Load().file.Cluster.Keep)
	if err != nil || !some {
		return err
	}
	all, err := s.records.List(ctx)
	if err != nil {
		return err
	}
	var items []retain.Item
	for _, r := range all {
		if r.State == cluster.StateComplete {
			items = append(items, retain.Item{ID: r.ID, Created: r.Created.Local()})
		}
	}
	gone := forgotten(policy, items)
	if len(gone) > 0 {
		_, err = s.coordinator.Delete(ctx, gone)
	}
	return err
}

func forgotten(policy retain.Policy, items []retain.Item) (gone []string) {
	for _, d := range policy.Apply(items) {
		if !d.Keep {
			gone = append(gone, d.ID)
		}
	}
	return gone
}

// policyOf is what a configuration keeps; false: it deletes nothing.
func policyOf(k config.Keep) (p retain.Policy, some bool, err error) {
	p = retain.Policy{Last: k.Last, Hourly: k.Hourly, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly, Yearly: k.Yearly, Tags: k.Tags}
	if k.Within != "" {
		if p.Within, err = retain.ParseSpan(k.Within); err != nil {
			return p, false, err
		}
	}
	if !deletes(k) {
		return p, false, nil
	}
	return p, true, p.Check()
}

// deletes tells whether a policy says anything.
func deletes(k config.Keep) bool { return !reflect.ValueOf(k).IsZero() }

// checkKeep refuses a policy that can't be right.
func checkKeep(what string, keep config.Keep) error {
	if _, _, err := policyOf(keep); err != nil {
		return fmt.Errorf("%s: keep: %w", what, err)
	}
	return nil
}

// never is the schedule of what isn't to be done, although something else asks for it.
const never = "never"

// dailyPrune is when the space of deleted snapshots is given back if the configuration doesn't say: once a day, after those of midnight have been taken and others deleted.
const dailyPrune = "30 3 * * *"

// pruneTimes is when a volume is pruned. Where nothing is deleted by itself, nobody but the administrator knows when.
func pruneTimes(c *current, v *volume) string {
	switch {
	case v.cfg.Prune == never:
		return ""
	case v.cfg.Prune != "":
		return v.cfg.Prune
	case !deletes(v.cfg.Keep) && !deletes(c.file.Cluster.Keep):
		return ""
	}
	return dailyPrune
}

// pruneVolume gives back the space of deleted snapshots, of one volume after the other: each reads and writes much.
func (s *schedules) pruneVolume(ctx context.Context, label string) error {
	v := s.now.Load().find(label)
	if v == nil {
		return nil
	}
	done, err := s.pruning.take(ctx, "")
	if err != nil {
		return err
	}
	defer done()
	return v.call(ctx, func(c *agent.Client) error {
		stream, err := c.Prune(ctx, &api.PruneRequest{})
		if err != nil {
			return v.said(err)
		}
		return v.said(api.Each(stream, func(ev *api.PruneEvent) error {
			if r := ev.GetResult(); r != nil {
				s.log.InfoContext(ctx, "the space of deleted snapshots is given back", "volume", label, "freed", r.GetFreedBytes(), "store", r.GetStoreBytes(), "unused", r.GetUnusedBytes())
			}
			return nil
		}))
	})
}
