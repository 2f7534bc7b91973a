package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

type pruneRow struct {
	ChunksRemoved  int64 `json:"chunks_removed"`
	PacksRemoved   int64 `json:"packs_removed"`
	PacksRewritten int64 `json:"packs_rewritten"`
	FreedBytes     int64 `json:"freed_bytes"`
	StoreBytes     int64 `json:"store_bytes"`
	DryRun         bool  `json:"dry_run"`
}

func (a *app) pruneCmd() *cobra.Command {
	var asJSON, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune VOLUME",
		Short: "Give back the space of deleted snapshots",
		Long: `Removes from the store what no snapshot refers to any more. It runs beside the database,
new snapshots and readers of old ones, and may be interrupted at any time.`,
		Example: `  graphvol prune /mnt/graph
  graphvol prune /mnt/graph --dry-run`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := a.prune(cmd, args[0], dryRun)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, pruneRow{
					res.GetChunksRemoved(), res.GetPacksRemoved(), res.GetPacksRewritten(), res.GetFreedBytes(), res.GetStoreBytes(), dryRun,
				})
			}
			verb := "freed"
			if dryRun {
				verb = "would free"
			}
			fmt.Fprintf(a.out, "%s %s: %s removed, %s rewritten; the store has %s\n", verb, size(res.GetFreedBytes()),
				plural(res.GetPacksRemoved(), "pack"), plural(res.GetPacksRewritten(), "pack"), size(res.GetStoreBytes()))
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, only say what would be freed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) prune(cmd *cobra.Command, volume string, dryRun bool) (*api.PruneResult, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Prune(cmd.Context(), &api.PruneRequest{DryRun: dryRun})
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "pruning")
	defer bar.done()
	var res *api.PruneResult
	err = each(stream, func(ev *api.PruneEvent) error {
		bar.update(ev.GetProgress())
		if ev.GetResult() != nil {
			res = ev.GetResult()
		}
		return nil
	})
	return res, err
}
