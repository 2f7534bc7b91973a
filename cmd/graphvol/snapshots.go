package main

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

func (a *app) snapshotsCmd() *cobra.Command {
	var asJSON bool
	var tags []string
	cmd := &cobra.Command{
		Use:   "snapshots VOLUME",
		Short: "List a volume's snapshots",
		Long: `Lists a volume's snapshots, oldest first, whether it is mounted or not.

A snapshot is pending until its blocks are stored, then complete. A failed one is
listed with the reason, and can be deleted; nothing of the volume is lost with it,
since the next snapshot covers what it would have held.`,
		Example: `  graphvol snapshots /mnt/graph
  graphvol snapshots /srv/graph --json | jq -r '.snapshots[].name'`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.ListSnapshots(cmd.Context(), &api.ListSnapshotsRequest{})
			if err != nil {
				return err
			}
			rows := withTags(list.GetSnapshots(), tags)
			if asJSON {
				return printJSON(a.out, struct {
					Snapshots []snapshotRow `json:"snapshots"`
				}{rowsOf(rows)})
			}
			return listSnapshots(a.out, rows)
		},
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only those that have this tag; repeat it for those that have one of several")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// withTags gives the snapshots that have one of the tags; all if there are none.
func withTags(list []*api.SnapshotInfo, tags []string) []*api.SnapshotInfo {
	if len(tags) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(s *api.SnapshotInfo) bool {
		return !slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(s.GetTags(), tag) })
	})
}

func rowsOf(list []*api.SnapshotInfo) []snapshotRow {
	rows := make([]snapshotRow, 0, len(list))
	for _, s := range list {
		rows = append(rows, rowOf(s))
	}
	return rows
}

func listSnapshots(w io.Writer, list []*api.SnapshotInfo) error {
	head := []string{"NAME", "ID", "CREATED", "KIND", "STATE", "PAUSE", "FILES", "SIZE", "CHANGED", "STORED"}
	copies := slices.ContainsFunc(list, func(s *api.SnapshotInfo) bool { return len(s.GetRemotes()) > 0 })
	if copies {
		head = append(head, "COPIES")
	}
	tags := slices.ContainsFunc(list, func(s *api.SnapshotInfo) bool { return len(s.GetTags()) > 0 })
	if tags {
		head = append(head, "TAGS")
	}
	t := newTable(w, head...)
	for _, s := range list {
		state := s.GetState()
		if s.GetHold() != "" {
			state += ", held: " + s.GetHold()
		}
		if s.GetError() != "" {
			state += ": " + s.GetError()
		}
		row := []string{s.GetName(), s.GetId(), s.GetCreated().AsTime().Local().Format(time.DateTime), s.GetKind(), state,
			duration(s.GetPause().AsDuration()), plural(s.GetFiles(), "file"), size(s.GetBytes()), size(s.GetDirtyBytes()), size(s.GetStoredBytes())}
		if copies {
			row = append(row, strings.Join(s.GetRemotes(), " "))
		}
		if tags {
			row = append(row, strings.Join(s.GetTags(), " "))
		}
		t.row(row...)
	}
	return t.flush()
}
