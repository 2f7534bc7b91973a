package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

func (a *app) deleteCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "delete VOLUME SNAPSHOT...",
		Short: "Delete snapshots",
		Long: `Deletes snapshots: all that are named, or none if one of them doesn't exist. Other
snapshots don't need them, whatever was taken from what. The space they alone use is
given back by graphvol prune.`,
		Example: `  graphvol delete /mnt/graph monday tuesday
  graphvol delete /mnt/graph 01K9 && graphvol prune /mnt/graph`,
		Args:              args(cobra.MinimumNArgs(2), "VOLUME and at least one SNAPSHOT"),
		ValidArgsFunction: a.completeArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			res, err := c.Delete(cmd.Context(), &api.DeleteRequest{Snapshots: args[1:]})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, struct {
					Deleted []snapshotRow `json:"deleted"`
				}{rowsOf(res.GetDeleted())})
			}
			for _, s := range res.GetDeleted() {
				fmt.Fprintf(a.out, "deleted %s  %s\n", s.GetName(), s.GetId())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
