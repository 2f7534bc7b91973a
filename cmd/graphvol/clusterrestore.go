package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

// clusterRestoreRow is what --json tells of one volume.
type clusterRestoreRow struct {
	FromNode     string `json:"from_node"`
	FromVolume   string `json:"from_volume"`
	Node         string `json:"node"`
	Destination  string `json:"destination"`
	Files        int64  `json:"files"`
	Bytes        int64  `json:"bytes"`
	WrittenBytes int64  `json:"written_bytes"`
}

func (a *app) clusterRestoreCmd(f *clusterFlags) *cobra.Command {
	req := &api.RestoreClusterRequest{}
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT DEST",
		Short: "Restore a snapshot of the cluster to directories of the nodes",
		Long: `Restores a snapshot of the cluster, on all nodes at the same time: what node N gets is in
DEST/N/VOLUME on that node. Every byte is verified before it is written. Stop the database,
and put the directories into the place of its own.

First the graph's version is compared with the snapshot's; if it is another one, nothing is
restored without --any-version. With --map a snapshot is restored to other nodes than it is
from: OLD=NEW for all volumes of a node, OLD:VOLUME=NEW:VOLUME for one, OLD=- leaves it out;
all nodes of the snapshot must be named then. A node takes the volumes of another from their
copies (graphvol mount --target).`,
		Example: `  graphvol cluster restore latest /srv/restored --dry-run
  graphvol cluster restore before-upgrade /srv/restored
  graphvol cluster restore before-upgrade /srv/restored --map a=a --map b=b --map c=a`,
		Args: args(cobra.ExactArgs(2), "SNAPSHOT and DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest, err := filepath.Abs(args[1])
			if err != nil {
				return fmt.Errorf("make %s absolute: %w", args[1], err)
			}
			req.Snapshot, req.Destination = args[0], []byte(dest)
			return f.ask(func(c api.ClusterClient) error { return a.restoreCluster(cmd.Context(), c, f.json, req) })
		},
	}
	cmd.Flags().StringArrayVar(&req.Map, "map", nil, "where a node, or a volume, of the snapshot goes; repeat it for more")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "write nothing, only say what would be restored where")
	cmd.Flags().BoolVar(&req.AnyVersion, "any-version", false, "also if the graph is another one now than in the snapshot")
	return cmd
}

func (a *app) restoreCluster(ctx context.Context, c api.ClusterClient, asJSON bool, req *api.RestoreClusterRequest) error {
	stream, err := c.Restore(ctx, req)
	if err != nil {
		return err
	}
	bar := newProgress(a.err, "restoring")
	defer bar.done()
	rows := []clusterRestoreRow{}
	err = api.Each(stream, func(ev *api.RestoreClusterEvent) error {
		for _, w := range ev.GetWarnings() {
			fmt.Fprintf(a.err, "graphvol: %s\n", w)
		}
		if ev.GetProgress() != nil {
			bar.update(ev.GetProgress())
		}
		if req.GetDryRun() {
			for _, p := range ev.GetPlan() {
				rows = append(rows, rowOfRestored(p))
			}
		} else if ev.GetDone() != nil {
			rows = append(rows, rowOfRestored(ev.GetDone()))
		}
		return nil
	})
	if err != nil {
		return err
	}
	bar.done()
	return a.printRestored(rows, asJSON, req.GetDryRun())
}

func rowOfRestored(v *api.RestoredVolume) clusterRestoreRow {
	r := v.GetResult()
	return clusterRestoreRow{v.GetFromNode(), v.GetFromVolume(), v.GetNode(), string(v.GetDestination()), r.GetFiles(), r.GetBytes(), r.GetWrittenBytes()}
}

func (a *app) printRestored(rows []clusterRestoreRow, asJSON, dryRun bool) error {
	if asJSON {
		return printJSON(a.out, struct {
			DryRun  bool                `json:"dry_run"`
			Volumes []clusterRestoreRow `json:"volumes"`
		}{dryRun, rows})
	}
	for _, r := range rows {
		if dryRun {
			fmt.Fprintf(a.out, "%s:%s would be restored to %s on node %s\n", r.FromNode, r.FromVolume, r.Destination, r.Node)
			continue
		}
		fmt.Fprintf(a.out, "%s:%s is restored to %s on node %s: %s with %s, wrote %s\n", r.FromNode, r.FromVolume, r.Destination, r.Node, plural(r.Files, "file"), size(r.Bytes), size(r.WrittenBytes))
	}
	return nil
}
