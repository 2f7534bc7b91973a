package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

func (a *app) snapshotCmd() *cobra.Command {
	var name string
	var tags []string
	var noWait, asJSON bool
	cmd := &cobra.Command{
		Use:   "snapshot VOLUME",
		Short: "Take a snapshot of a mounted volume",
		Long: `Takes a snapshot of a mounted volume while the database works on.

The snapshot holds every write that had returned when this command was called, and
everything that was fsynced before the pause. Writers are held for the length of the
pause only, which is milliseconds and doesn't depend on the volume's size. Afterwards
the changed blocks are stored in the background; the command waits for that and shows
what it cost, unless --no-wait is given.

The first snapshot of a volume is full, later ones store what changed since the one
before.`,
		Example: `  graphvol snapshot /mnt/graph
  graphvol snapshot /mnt/graph --name before-upgrade --tag release
  graphvol snapshot /mnt/graph --no-wait --json`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.takeSnapshot(cmd.Context(), args[0], &api.SnapshotRequest{Name: name, NoWait: noWait, Tags: tags})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, rowOf(s))
			}
			printSnapshot(a.out, s)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name of the snapshot (default: made from the time)")
	f.StringArrayVar(&tags, "tag", nil, "a tag of the snapshot, for policies (graphvol forget --keep-tag) and lists; repeat it for more")
	f.BoolVar(&noWait, "no-wait", false, "return after the pause, don't wait until the snapshot is stored")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) takeSnapshot(ctx context.Context, volume string, req *api.SnapshotRequest) (*api.SnapshotInfo, error) {
	c, err := a.open(ctx, volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Snapshot(ctx, req)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "flushing")
	defer bar.done()
	var last *api.SnapshotInfo
	err = api.Each(stream, func(ev *api.SnapshotEvent) error {
		if ev.GetSnapshot() != nil {
			last = ev.GetSnapshot()
		}
		if ev.GetStage() == api.SnapshotEvent_STAGE_SEALING {
			bar.stage("storing " + last.GetName())
			bar.update(ev.GetProgress())
		}
		return nil
	})
	if err != nil {
		return c.AfterLoss(ctx, last, err)
	}
	return last, nil
}

func printSnapshot(w io.Writer, s *api.SnapshotInfo) {
	fmt.Fprintf(w, "%s  %s\n", s.GetName(), s.GetId())
	fmt.Fprintf(w, "  paused writers for %s", duration(s.GetPause().AsDuration()))
	if s.GetState() != "complete" {
		fmt.Fprintf(w, "; being stored (%s)\n", s.GetState())
		return
	}
	fmt.Fprintf(w, "; stored in %s\n", duration(s.GetSeal().AsDuration()))
	fmt.Fprintf(w, "  %s: %s with %s; read %s, added %s to the store\n", s.GetKind(), plural(s.GetFiles(), "file"),
		size(s.GetBytes()), size(s.GetDirtyBytes()), size(s.GetStoredBytes()))
}
