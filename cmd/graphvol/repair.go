package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"graphvol/agent/api"
	"graphvol/chunkstore/limit"
)

func (a *app) repairCmd() *cobra.Command {
	req := &api.RepairRequest{}
	var asJSON bool
	var rate string
	cmd := &cobra.Command{
		Use:   "repair VOLUME",
		Short: "Mend a volume's store from its copies, and the copies from the store",
		Long: `Reads the volume's own store, and puts back from the copies what is damaged or missing
there. Then it reads the copies, puts the shards and copies that are missing or damaged
on their targets, and copies again from the store what they can't give any more.

With --erasure or --target a copy that is spread over several targets is moved first: to
another layout, or to other targets, all of which are named. What is there stays readable
meanwhile; at the end nothing is left in the former layout or on the former targets. If
that is interrupted, the next repair goes on.

What neither the store nor a copy has is lost: the snapshots that need it are named, and
the exit code is 1. Everything else of them can be read. It may be interrupted at any
time, and run again; it runs beside the database.`,
		Example: `  graphvol repair /mnt/graph
  graphvol repair /srv/graph --copy r1            # not mounted
  graphvol repair /mnt/graph --erasure 2+1 --target dir:/disk1/graph --target dir:/disk2/graph --target dir:/disk3/graph`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Limit, err = limit.ParseRate(rate); err != nil {
				return usageError{err}
			}
			doc, err := a.scrub(cmd, args[0], asJSON, "mending", func(c api.VolumeClient) (grpc.ServerStreamingClient[api.ScrubEvent], error) {
				return c.Repair(cmd.Context(), req)
			})
			if err != nil {
				return err
			}
			problems, failed := doc.left()
			switch {
			case len(doc.Lost) > 0:
				return fmt.Errorf("%s can't be mended, and snapshots need what is lost: restore what is still whole, and take a new snapshot of the volume", plural(problems, "problem"))
			case failed != nil:
				return failed
			case problems > 0:
				return fmt.Errorf("%s can't be mended now; see above", plural(problems, "problem"))
			}
			return nil
		},
	}
	scrubFlags(cmd, &req.Remote, &rate, &asJSON)
	cmd.Flags().StringVar(&req.Erasure, "erasure", "", "the layout of the copy from now on, as 4+2 (default: as it is)")
	cmd.Flags().StringArrayVar(&req.Targets, "target", nil, "all targets of the copy from now on; repeat it (default: as they are)")
	return cmd
}
