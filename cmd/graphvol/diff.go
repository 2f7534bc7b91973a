package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

type changeRow struct {
	Path         string     `json:"path"`
	PathBase64   string     `json:"path_base64,omitempty"` // if it isn't UTF-8
	OldPath      string     `json:"old_path,omitempty"`
	OldBase64    string     `json:"old_path_base64,omitempty"`
	Kind         string     `json:"kind"`
	Content      bool       `json:"content"`
	Attributes   bool       `json:"attributes"`
	Link         bool       `json:"link,omitempty"`
	ChangedBytes int64      `json:"changed_bytes"`
	Ranges       []rangeRow `json:"ranges,omitempty"`
}

func (a *app) diffCmd() *cobra.Command {
	var asJSON, ranges bool
	cmd := &cobra.Command{
		Use:   "diff VOLUME A B",
		Short: "Show what differs between two snapshots",
		Long: `Shows the files that differ between snapshot A and snapshot B, and with --ranges which
bytes of them, in blocks of 4 KiB. No file is read: the trees of the two snapshots are
compared, and what they share is skipped, so the time depends on the difference only.
Files are told apart by where their blocks are stored, so it may say too much, never too
little.`,
		Example: `  graphvol diff /mnt/graph before-upgrade latest
  graphvol diff /mnt/graph monday tuesday --ranges
  graphvol diff /mnt/graph monday tuesday --json | jq -r '.changes[].path'`,
		Args:              args(cobra.ExactArgs(3), "VOLUME and two SNAPSHOTs"),
		ValidArgsFunction: a.completeArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			stream, err := c.Diff(cmd.Context(), &api.DiffRequest{A: args[1], B: args[2], Ranges: ranges})
			if err != nil {
				return err
			}
			if !asJSON {
				return api.Each(stream, func(ch *api.Change) error {
					fmt.Fprintf(a.out, "%-8s %10s  %s\n", ch.GetKind(), size(ch.GetChangedBytes()), changedPath(ch))
					printRanges(a.out, ch.GetRanges())
					return nil
				})
			}
			list := newJSONList(a.out, "changes")
			err = api.Each(stream, func(ch *api.Change) error {
				return list.add(changeRow{
					Path: string(ch.GetPath()), PathBase64: exact(ch.GetPath()), OldPath: string(ch.GetOldPath()), OldBase64: exact(ch.GetOldPath()),
					Kind: ch.GetKind(), Content: ch.GetContent(), Attributes: ch.GetAttributes(), Link: ch.GetLink(), ChangedBytes: ch.GetChangedBytes(), Ranges: rangesOf(ch.GetRanges()),
				})
			})
			if err != nil {
				return err
			}
			return list.end()
		},
	}
	cmd.Flags().BoolVar(&ranges, "ranges", false, "also show which bytes of each file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func changedPath(ch *api.Change) string {
	if len(ch.GetOldPath()) > 0 {
		return shown(ch.GetOldPath()) + " -> " + shown(ch.GetPath())
	}
	return shown(ch.GetPath())
}
