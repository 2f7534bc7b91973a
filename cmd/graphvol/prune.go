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
	UnusedBytes    int64 `json:"unused_bytes"`
	DryRun         bool  `json:"dry_run"`
}

func (a *app) pruneCmd() *cobra.Command {
	var asJSON, dryRun bool
	var maxUnused int
	cmd := &cobra.Command{
		Use:   "prune VOLUME",
		Short: "Give back the space of deleted snapshots",
		Long: `Removes from the store what no snapshot refers to any more. It runs beside the database,
new snapshots and readers of old ones, and may be interrupted at any time.

Packs of which something is still needed are rewritten where that is worth it: those of
which more than half is unused, and then those with the largest unused part, until at
most 5 % of the store is unused. Each rewritten pack has to be sent to the volume's copies
again; so of the packs that a copy has only those are rewritten of which more than half
is unused. --max-unused applies to all packs: less space is wasted then, and more is
sent.`,
		Example: `  graphvol prune /mnt/graph
  graphvol prune /mnt/graph --dry-run
  graphvol prune /mnt/graph --max-unused 1`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &api.PruneRequest{DryRun: dryRun}
			if cmd.Flags().Changed("max-unused") {
				if maxUnused < 0 || maxUnused > 100 {
					return usageError{fmt.Errorf("--max-unused %d: want a percentage, 0 to 100", maxUnused)}
				}
				percent := int32(maxUnused)
				req.MaxUnusedPercent = &percent
			}
			res, err := a.prune(cmd, args[0], req)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, pruneRow{
					res.GetChunksRemoved(), res.GetPacksRemoved(), res.GetPacksRewritten(), res.GetFreedBytes(), res.GetStoreBytes(),
					res.GetUnusedBytes(), dryRun,
				})
			}
			verb := "freed"
			if dryRun {
				verb = "would free"
			}
			unused := ""
			if n := res.GetUnusedBytes(); n > 0 {
				unused = fmt.Sprintf(", %s of it unused", size(n))
			}
			fmt.Fprintf(a.out, "%s %s: %s removed, %s rewritten; the store has %s%s\n", verb, size(res.GetFreedBytes()),
				plural(res.GetPacksRemoved(), "pack"), plural(res.GetPacksRewritten(), "pack"), size(res.GetStoreBytes()), unused)
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, only say what would be freed")
	cmd.Flags().IntVar(&maxUnused, "max-unused", 5, "how many percent of the store may stay unused, also in packs that copies have")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) prune(cmd *cobra.Command, volume string, req *api.PruneRequest) (*api.PruneResult, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Prune(cmd.Context(), req)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "pruning")
	defer bar.done()
	var res *api.PruneResult
	err = api.Each(stream, func(ev *api.PruneEvent) error {
		bar.update(ev.GetProgress())
		if ev.GetResult() != nil {
			res = ev.GetResult()
		}
		return nil
	})
	return res, err
}
